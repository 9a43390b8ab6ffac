"""Several data sets as one: classes united, each case annotated with its own set's, patients kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmaskrcnn.data.check import ManifestReport, check_manifest
from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, read_manifest
from medmaskrcnn.errors import InvalidOptionError, ReadError
from medmaskrcnn_datasets.join import join_datasets
from medmaskrcnn_datasets.manifest import write_manifest


def a_set(
    folder: Path, name: str, *classes: str, annotated: tuple[str, ...] | None = None, cases: int = 2, **more: object
) -> Path:
    instances = [ManifestInstance(value=1, class_name=classes[0]), ManifestInstance(value=255, ignore=True)]
    made_cases = [
        ManifestCase(id=f"c{n}", patient=f"p{n}", image=f"c{n}.nii", label=f"l{n}.nii", split="train",
                     instances=instances, annotated=annotated if n else None)
        for n in range(cases)
    ]  # fmt: skip
    made = Manifest(name=name, modality="CT", licence=name, class_names=classes, cases=tuple(made_cases), **more)
    return write_manifest(made, folder / "manifest.json")


def test_each_case_is_annotated_with_its_own_classes(tmp_path: Path) -> None:
    one = a_set(tmp_path / "all/one", "abdomen", "liver", "right_kidney", annotated=("liver",))
    other = a_set(tmp_path / "other", "chest", "lung", "Right kidney", "Leber")
    joined = read_manifest(join_datasets([one, other], tmp_path / "all/joined.json", rename={"Leber": "liver"}))
    assert joined.class_names == ("liver", "right_kidney", "lung") and joined.modality == "CT"
    assert [(case.id, case.patient) for case in joined.cases[1:3]] == [
        ("abdomen_c1", "abdomen_p1"),
        ("chest_c0", "chest_p0"),
    ]
    assert [case.annotated for case in joined.cases[:2]] == [("liver", "right_kidney"), ("liver",)]
    assert joined.cases[2].annotated is None  # all three
    assert [case.image for case in joined.cases] == [
        "one/c0.nii", "one/c1.nii", str(tmp_path / "other/c0.nii"), str(tmp_path / "other/c1.nii")
    ]  # fmt: skip
    assert [(i.class_name, i.ignore) for i in joined.cases[3].instances] == [("lung", False), (None, True)]
    with pytest.raises(InvalidOptionError, match="no class 'spleen'"):
        join_datasets([one, other], tmp_path / "x.json", rename={"spleen": "liver"})


def test_a_small_set_is_not_drowned(tmp_path: Path) -> None:
    """The check tells how often each set is drawn from, and a planned training does so."""
    one, other = a_set(tmp_path / "a", "large", "liver", cases=16), a_set(tmp_path / "b", "small", "lung", cases=4)
    joined = read_manifest(join_datasets([one, other], tmp_path / "joined.json"))
    assert [case.data_set for case in joined.cases] == ["large"] * 16 + ["small"] * 4
    rows = ManifestReport(joined, (), ()).set_rows()
    assert [(row.data_set, row.cases) for row in rows] == [("large", 16), ("small", 4)]
    assert [row.share for row in rows] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert ManifestReport(read_manifest(one), (), ()).set_rows() == ()


def test_channels_are_the_same_in_all_sets(tmp_path: Path) -> None:
    names = {"channel_names": ("T1", "FLAIR")}
    one, unnamed = a_set(tmp_path / "a", "a", "liver", **names), a_set(tmp_path / "b", "b", "lung")
    joined = read_manifest(join_datasets([one, unnamed], tmp_path / "joined.json"))
    assert joined.channel_names == ("T1", "FLAIR")
    swapped = a_set(tmp_path / "c", "c", "lung", channel_names=("FLAIR", "T1"))
    with pytest.raises(ReadError, match=r"a: T1, FLAIR; c: FLAIR, T1"):
        join_datasets([one, swapped], tmp_path / "joined.json")


def test_what_a_set_left_out_stays_told(tmp_path: Path) -> None:
    one, other = (
        a_set(tmp_path / "a", "a", "liver", left_out=("x.dcm labels nothing",)),
        a_set(tmp_path / "b", "b", "lung"),
    )
    joined = read_manifest(join_datasets([one, other], tmp_path / "joined.json"))
    assert joined.left_out == ("a: x.dcm labels nothing",)
    assert "x.dcm labels nothing" in " ".join(f.text for f in check_manifest(joined, workers=1).findings)


def test_twenty_classes_of_three_real_sets(medmaskrcnn_data: Path, tmp_path: Path) -> None:
    from medmaskrcnn_datasets.convert import to_manifest

    told: list[str] = []
    names = ("AbdomenCT", "LungCT", "HeadNeckCT")
    made = [to_manifest(medmaskrcnn_data / name, tmp_path / name, on_event=told.append) for name in names]
    joined = read_manifest(join_datasets(made, tmp_path / "joined.json", on_event=told.append))
    assert len(joined.class_names) == 13 + 2 + 5 and len(joined.cases) == 21 + 8 + 183
    annotated = [len(joined.annotated_in(case)) for case in joined.cases]
    assert annotated[:21] == [13] * 21 and annotated[21:29] == [2] * 8
    assert sum(n == 5 for n in annotated[29:]) == 123 and min(annotated[29:]) >= 2
    few = joined.model_copy(update={"cases": joined.cases[::40]})
    check_manifest(few, workers=1).raise_if_bad()


def test_shares_of_the_sets(tmp_path: Path) -> None:
    one, other = a_set(tmp_path / "one", "abdomen", "liver"), a_set(tmp_path / "other", "chest", "lung")
    many = read_manifest(other)
    cases = tuple(many.cases[0].model_copy(update={"id": f"c{n}", "patient": f"p{n}"}) for n in range(8))
    write_manifest(many.model_copy(update={"cases": cases}), other)

    def share_of_first(**more: object) -> float:
        joined = read_manifest(join_datasets([one, other], tmp_path / "joined.json", on_event=told.append, **more))
        weights = [case.weight for case in joined.cases]
        return sum(weights[:2]) / sum(weights)

    told: list[str] = []
    assert share_of_first() == pytest.approx(1 / 3)  # by the roots of 2 and 8
    assert "33% of the training samples" in told[0] and "67% of the training samples" in told[1]
    assert share_of_first(shares=[3, 1]) == pytest.approx(3 / 4)
    for wrong in ([1], [1, 0], [1, float("inf")]):
        with pytest.raises(InvalidOptionError, match="one positive number for each of 2 data sets"):
            share_of_first(shares=wrong)

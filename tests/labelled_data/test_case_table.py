"""``cases.csv`` beside the images: patients, classes, splits, annotated classes, labels of the cases."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.convert import ConversionOptions, to_manifest
from medmaskrcnn_datasets.splits import SplitRule


def pictures(root: Path, table: str | bytes, n: int = 4) -> Path:
    for sub in ("images", "masks"):
        (root / sub).mkdir(parents=True)
    for number in range(n):
        values = np.zeros((20, 24), np.uint8)
        values[4:10, 5 + number : 12 + number] = 255
        noise = np.random.default_rng(number).integers(0, 99, values.shape).astype(np.uint8)
        Image.fromarray(noise).save(root / f"images/a{number}.png")
        Image.fromarray(values).save(root / f"masks/a{number}.png")
    (root / "cases.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def organs(root: Path, table: str, *, held: tuple[int, ...] = (1, 2)) -> Path:
    """MSD layout with two organs; the second of three cases holds only the values ``held``."""
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    pairs = []
    for number in range(3):
        values = np.zeros((6, 12, 12), np.uint8)
        for value in (1, 2) if number != 1 else held:
            values[1:5, 2:6, 5 * value - 4 : 5 * value] = value
        image = np.random.default_rng(number).normal(size=values.shape).astype(np.float32)
        for sub, array in (("imagesTr", image), ("labelsTr", values)):
            nib.save(nib.Nifti1Image(array.T, np.eye(4)), root / sub / f"c{number}.nii.gz")
        pairs.append({"image": f".\\imagesTr\\c{number}.nii.gz", "label": f"D:\\data\\labelsTr\\c{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "right parotid", "2": "mandible"}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")
    (root / "cases.csv").write_text(table)
    return root


def converted(root: Path, told: list[str] | None = None, **options) -> Manifest:
    say = (told if told is not None else []).append
    return read_manifest(to_manifest(root, root.with_name(f"{root.name}-out"), on_event=say, **options))


TABLE = """case,class,block,split,scanner,age
a0,glioma,1,train,A,40
a1,meningioma,1,train,B,51.5
a2,glioma,2,test,,
a3,glioma,3,val,A,7
"""


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.replace(",", ";").encode("utf-8-sig"),
        TABLE.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
        TABLE.replace("\na", "\nimages\\a").replace(",glioma", ".png,glioma").replace(",menin", ".png,menin"),
        TABLE.replace("case,", "File Name,").replace("block", "Patient ID").replace("train", "Training"),
    ],
)
def test_what_a_table_says_of_pictures(tmp_path: Path, table: str | bytes) -> None:
    told: list[str] = []
    manifest = converted(pictures(tmp_path / "set", table), told)
    assert manifest.class_names == ("glioma", "meningioma")
    assert [(c.patient, c.split, c.instances[0].class_name) for c in manifest.cases] == [
        ("1", "train", "glioma"), ("1", "train", "meningioma"), ("2", "test", "glioma"), ("3", "val", "glioma")
    ]  # fmt: skip
    assert [c.case_labels for c in manifest.cases[1:3]] == [
        {"scanner": "B", "age": 51.5},
        {"scanner": None, "age": None},
    ]
    assert any("is the patient" in text for text in told)
    check_manifest(manifest, workers=1).raise_if_bad()


def test_what_is_given_overrules_the_table(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", TABLE)
    manifest = converted(root, options=ConversionOptions(patient="a(.)"), splits=SplitRule(test=("0",)))
    assert [(c.patient, c.split) for c in manifest.cases] == [
        ("0", "test"),
        ("1", "train"),
        ("2", "train"),
        ("3", "train"),
    ]


@pytest.mark.parametrize("names", ["mandible parotid_right", "right parotid;Mandible", "all", ""])
@pytest.mark.parametrize("column", ["organs", "labels", "annotated"])
def test_classes_annotated_in_a_case(tmp_path: Path, names: str, column: str) -> None:
    table = f"case,{column}\nc0,{names}\nc1,mandible\nc2,mandible\n"
    if not names:
        table = table.replace("c0,\n", "")  # no row: nothing is said
    root = organs(tmp_path / "set", table, held=(2,))
    for number in (0, 2):
        path = root / f"labelsTr/c{number}.nii.gz"
        values = np.asarray(nib.load(path).dataobj) * (1 if number == 0 else (np.asarray(nib.load(path).dataobj) == 2))
        nib.save(nib.Nifti1Image(values.astype(np.uint8), np.eye(4)), path)
    manifest = converted(root)
    full = None if names in ("all", "") else {"right parotid", "mandible"}
    first = manifest.cases[0].annotated
    assert (first if first is None else set(first)) == full
    assert manifest.cases[1].annotated == ("mandible",) and manifest.annotated_in(manifest.cases[0]) == (
        "right parotid", "mandible"
    )  # fmt: skip
    assert [i.class_name for i in manifest.cases[1].instances] == ["mandible"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "case,organs\nc0,mandible spleen\nc1,mandible\nc2,mandible\n",
            r"names annotated classes \['spleen'\]; there are",
        ),
        ("case,organs\nc0,mandible\n", "case 'c0': the labels hold right parotid, which cases.csv does not name"),
        ("case,patient\nx0,1\nx1,2\n", "names none of the cases: it has x0, x1, the data set c0, c1, c2"),
        ("case,patient\nc0,1\nc0,2\n", "line 3: the case c0 has two rows"),
        ("case,split\nc0,train\nc1,never\n", "line 3: the split must be train, val or test, got 'never'"),
        ("who,patient\nc0,1\n", "must have a column that names the case"),
        ("case,patient\nc0,1,2\n", "line 2: more cells than columns"),
        ("", "is empty"),
        ("case,patient\n,1\n", "line 2: the case has no name"),
    ],
)
def test_a_table_that_contradicts_the_data(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ReadError, match=said):
        converted(organs(tmp_path / "set", table))


def test_rows_and_cases_without_each_other_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    manifest = converted(organs(tmp_path / "set", "case,patient,labels\nc0,p,partial\nc1,p,complete\nc9,q,\n"), told)
    assert any("has no row for 1 of 3 cases: c2" in text for text in told)
    assert any("has 1 rows of cases that are not there: c9" in text for text in told)
    assert [case.patient for case in manifest.cases] == ["p", "p", "c2"]
    assert [case.annotated for case in manifest.cases] == [None] * 3  # "partial" is no class
    assert manifest.cases[0].case_labels == {"labels": "partial"}


def test_a_patient_in_two_splits_is_found(tmp_path: Path) -> None:
    manifest = converted(pictures(tmp_path / "set", TABLE.replace("a2,glioma,2", "a2,glioma,1")))
    assert [f.text for f in check_manifest(manifest, workers=1).errors] == [
        "patient 1 lies in 2 splits (train: a0, a1; test: a2)"
    ]


def test_real_tables(medmaskrcnn_data: Path, tmp_path: Path) -> None:
    nodules = converted(
        part_of(medmaskrcnn_data / "LungNoduleCT", tmp_path / "a", "imagesTr", "labelsTr", chosen=slice(90))
    )
    assert len({case.patient for case in nodules.cases}) < len(nodules.cases) == 90
    ignored = [i.ignore for case in nodules.cases for i in case.instances]
    assert nodules.class_names == ("object",) and sum(ignored) >= 1 and ignored.count(False) >= 90
    tumours = converted(
        part_of(medmaskrcnn_data / "BrainTumourMR", tmp_path / "b", "images", "masks", chosen=slice(None, None, 16))
    )
    assert tumours.class_names == ("glioma", "meningioma", "pituitary")
    splits = {case.patient: case.split for case in tumours.cases}
    assert all(splits[case.patient] == case.split for case in tumours.cases) and len(splits) <= 28


def part_of(source: Path, root: Path, *folders: str, chosen: slice) -> Path:
    """Some cases of a data set, by links."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for file in sorted((source / folder).iterdir())[chosen]:
            (root / folder / file.name).symlink_to(file)
    (root / "cases.csv").symlink_to(source / "cases.csv")
    return root

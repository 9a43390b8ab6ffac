"""What a manifest may say, how it is written, and how patients are dealt into splits."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.manifest import located, write_manifest
from medmaskrcnn_datasets.splits import SplitRule, read_splits

LIVER = ManifestInstance(value=1, class_name="liver")
TUMOUR = ManifestInstance(value=2, class_name="tumour", part_of=1)


def case(name="a", *, patient=None, split=None, instances=(LIVER, TUMOUR), **more):
    files = {"image": f"{name}.nii", "label": f"{name}_label.nii"} | more
    return ManifestCase(id=name, patient=patient or name, split=split, instances=instances, **files)


def manifest(*cases):
    return Manifest(
        name="Lebern", modality="CT", licence="CC0-1.0", class_names=("liver", "tumour"), cases=cases, folder="/x"
    )


def test_written_as_the_contract_says(tmp_path):
    path = write_manifest(manifest(case(split="val")), tmp_path / "manifest.json")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "version": 1,
        "name": "Lebern",
        "modality": "CT",
        "licence": "CC0-1.0",
        "class_names": ["liver", "tumour"],
        "cases": [
            {
                "id": "a",
                "patient": "a",
                "image": "a.nii",
                "label": "a_label.nii",
                "split": "val",
                "fold": None,
                "case_labels": {},
                "instances": [
                    {"value": 1, "class": "liver", "part_of": None, "map": 0},
                    {"value": 2, "class": "tumour", "part_of": 1, "map": 0},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instances": (LIVER, LIVER)}, r"one value to two instances: \[1\]"),
        ({"instances": (TUMOUR,)}, r"part of none of its instances: \{1\}"),
        ({"instances": (LIVER, TUMOUR.model_copy(update={"map": 1})), "label": ("a", "b")}, r"part of none"),
        ({"instances": (LIVER.model_copy(update={"map": 1}),)}, r"1 label maps, its instances speak of the maps \[1\]"),
        ({"label": None}, r"0 label maps"),
        ({"image": ()}, "at least 1 item"),
        ({"fold": -1}, "greater than or equal to 0"),
    ],
)
def test_cases_that_contradict_themselves(changes, said):
    with pytest.raises(ValueError, match=said):
        case(**changes)


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([case(), case()], "occur twice"),
        ([case(instances=(ManifestInstance(value=1, class_name="lung"),))], "class_names lacks"),
    ],
)
def test_contradictions_are_refused(cases, said):
    with pytest.raises(ValueError, match=said):
        manifest(*cases)


def test_everything_a_case_may_say_is_read_again(tmp_path):
    written = manifest(
        case(image=("t1.nii", "t2.nii"), label=("a.nii", "b.nii"), fold=3, case_labels={"grade": 2, "side": "left"},
             instances=(LIVER, TUMOUR, LIVER.model_copy(update={"map": 1}))),
        case("b", label=None, instances=()),
    )  # fmt: skip
    read = read_manifest(write_manifest(written, tmp_path / "manifest.json"))
    assert read.cases == written.cases and read.folder == str(tmp_path.resolve())
    assert read.cases[0].images == ("t1.nii", "t2.nii") and read.cases[0].label_maps == ("a.nii", "b.nii")
    assert read.cases[1].images == ("b.nii",) and read.cases[1].label_maps == ()


def test_files_are_named_relative_to_the_manifest_where_they_lie_below_it(tmp_path):
    assert located(tmp_path / "x" / ".." / "images" / "a.nii", tmp_path) == "images/a.nii"
    assert located(tmp_path.parent / "a.nii", tmp_path) == str((tmp_path.parent / "a.nii").resolve())


class TestSplits:
    def test_lists_hold_out_by_name(self):
        splits = SplitRule(test=("b",), val=("c",)).assign(["a", "b", "c", "a"])
        assert splits == {"a": "train", "b": "test", "c": "val"}

    def test_errors(self):
        with pytest.raises(ValueError, match=r"unknown patients \['x'\]; there are a, b"):
            SplitRule(test=("x",)).assign(["b", "a"])
        with pytest.raises(ValueError, match="not both"):
            SplitRule(test=("a",), val=("a",))
        with pytest.raises(ValueError, match="fold"):
            SplitRule(folds=3, fold=3)
        with pytest.raises(ValueError, match="fold"):
            SplitRule(folds=1)
        with pytest.raises(ValueError, match="as many patients"):
            SplitRule(folds=3).assign(["a", "b"])

    @given(st.sets(st.text(min_size=1, max_size=4), min_size=6, max_size=20), st.integers(2, 5))
    def test_folds_take_each_patient_once_and_spare_the_test_set(self, patients, folds):
        held_out = sorted(patients)[0]
        dealt = [SplitRule(test=(held_out,), folds=folds, fold=k).assign(patients) for k in range(folds)]
        val = [[p for p, s in splits.items() if s == "val"] for splits in dealt]
        assert sorted(p for fold in val for p in fold) == sorted(patients - {held_out})
        assert max(map(len, val)) - min(map(len, val)) <= 1
        assert all(splits[held_out] == "test" for splits in dealt)

    def test_shares_are_taken_by_the_hash_of_the_names(self):
        names = [f"p{n}" for n in range(20)]
        splits = SplitRule(test_share=0.2, val_share=0.1, train=("p3",)).assign(names[::-1])
        order = sorted(set(names) - {"p3"}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        assert [n for n in order if splits[n] == "test"] == order[:4]
        assert [n for n in order if splits[n] == "val"] == order[4:6]
        assert splits["p3"] == "train" and sum(s == "train" for s in splits.values()) == 14

    def test_shares_count_those_who_are_named(self):
        splits = SplitRule(test=("b",), test_share=0.25, val_share=0.25).assign("abcdefgh")
        assert splits["b"] == "test"
        assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 4 + ["val"] * 2

    def test_small_sets(self):
        rule = SplitRule(test_share=0.2, val_share=0.1)
        assert sorted(rule.assign("abc").values()) == ["test", "train", "val"]
        assert set(rule.assign("ab").values()) == {"train"}

    def test_a_new_patient_moves_few(self):
        rule = SplitRule(test_share=0.2, val_share=0.1)
        before, after = rule.assign(map(str, range(100))), rule.assign(map(str, range(101)))
        assert sum(before[name] != after[name] for name in before) <= 3

    @given(st.integers(0, 4))
    def test_folds_are_the_same_whichever_is_for_validation(self, fold):
        names = [f"p{n}" for n in range(13)]
        rule = SplitRule(test=("p1",), val=("p2",), train=("p4",), test_share=0.2, folds=5, fold=fold)
        folds, splits = rule.fold_of(names), rule.assign(names)
        assert folds == SplitRule(test=("p1",), val=("p2",), train=("p4",), test_share=0.2, folds=5).fold_of(names)
        assert {n for n, s in splits.items() if s == "val"} == {n for n, f in folds.items() if f == fold} | {"p2"}
        assert not {n for n, s in splits.items() if s == "test"} & set(folds)
        assert "p4" not in folds and splits["p4"] == "train"

    def test_wrong_shares(self):
        for shares in ({"test_share": 0.6, "val_share": 0.4}, {"test_share": -0.1}):
            with pytest.raises(ValueError, match="shares must"):
                SplitRule(**shares)
        with pytest.raises(ValueError, match="either folds or a share"):
            SplitRule(folds=3, val_share=0.1)
        with pytest.raises(ValueError, match="not both"):
            SplitRule(train=("a",), test=("a",))

    def test_files_of_names(self, tmp_path):
        path = tmp_path / "split.json"
        path.write_text('{"rule": "by hand", "test": ["a"], "val": [7]}')
        assert read_splits(path) == SplitRule(test=("a",), val=("7",))
        for content, said in (("{", "no JSON"), ("[]", "must hold lists"), ('{"test": "a"}', "must hold lists")):
            path.write_text(content)
            with pytest.raises(ReadError, match=said):
                read_splits(path)
        with pytest.raises(ReadError, match="nowhere"):
            read_splits(tmp_path / "nowhere.json")

    def test_order_of_the_cases_does_not_matter(self):
        names = [f"patient {n}" for n in range(10)]
        rule = SplitRule(folds=4, fold=1)
        assert rule.assign(names) == rule.assign(names[::-1])

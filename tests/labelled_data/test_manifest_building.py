"""What a manifest may say, how it is written, and how patients are dealt into splits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmaskrcnn_datasets.manifest import Manifest, ManifestCase, ManifestInstance, write_manifest
from medmaskrcnn_datasets.splits import SplitRule

LIVER, TUMOUR = ManifestInstance(1, "liver"), ManifestInstance(2, "tumour", part_of=1)


def case(name="a", *, patient=None, split=None, instances=(LIVER, TUMOUR)):
    return ManifestCase(name, patient or name, f"{name}.nii", f"{name}_label.nii", split, instances)


def manifest(*cases):
    return Manifest("Lebern", "CT", "CC0-1.0", ("liver", "tumour"), cases)


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
                "instances": [
                    {"value": 1, "class": "liver", "part_of": None},
                    {"value": 2, "class": "tumour", "part_of": 1},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([case(), case()], "unique"),
        ([case("a", patient="p", split="train"), case("b", patient="p", split="test")], "two splits"),
        ([case(instances=(LIVER, LIVER))], "distinct"),
        ([case(instances=(ManifestInstance(0, "liver"),))], "positive"),
        ([case(instances=(ManifestInstance(1, "lung"),))], "unknown class"),
        ([case(instances=(TUMOUR,))], "part of 1"),
    ],
)
def test_contradictions_are_refused(cases, said):
    with pytest.raises(ValueError, match=said):
        manifest(*cases)


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

    def test_order_of_the_cases_does_not_matter(self):
        names = [f"patient {n}" for n in range(10)]
        rule = SplitRule(folds=4, fold=1)
        assert rule.assign(names) == rule.assign(names[::-1])

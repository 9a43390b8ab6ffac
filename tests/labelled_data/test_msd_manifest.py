"""Data sets in MSD layout: a tiny one made here, and a real one."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.msd import msd_dataset, read_description
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.splits import SplitRule

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def label_map() -> np.ndarray:
    """A kidney in two pieces that do not touch, one of 8 and one of 12 voxels, and a liver of 1 + 1 at a corner."""
    values = np.zeros((10, 9, 8), np.uint8)
    values[0:2, 0:2, 0:2] = 2
    values[5:8, 5:7, 5:7] = 2
    values[9, 8, 7] = values[8, 7, 6] = 1
    return values


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two cases; the second has a kidney alone."""
    folder = tmp_path / "Task99_Tiny"
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    pairs = []
    for name in ("p1_a", "p2_a"):
        values = label_map()
        if name == "p2_a":
            values[values == 1] = 0
        nibabel.save(nibabel.Nifti1Image(np.zeros(values.shape, np.int16), AFFINE), folder / f"imagesTr/{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), folder / f"labelsTr/{name}.nii.gz")
        pairs.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {
        "name": "Tiny",
        "licence": "CC0",
        "modality": {"0": "MRI T2"},
        "labels": {"0": "background", "2": "Right Kidney", "1": "liver"},
        "training": pairs,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def edit(dataset, **changes):
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_label(dataset, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), dataset / "labelsTr/p1_a.nii.gz")


def test_one_instance_per_value(dataset, tmp_path):
    manifest = json.loads(msd_dataset(dataset, tmp_path / "out").read_text())
    assert manifest["class_names"] == ["liver", "Right Kidney"]  # by value, spelt as in dataset.json
    assert (manifest["name"], manifest["modality"], manifest["licence"]) == ("Tiny", "MR", "CC0")
    first, second = manifest["cases"]
    assert [(i["value"], i["class"]) for i in first["instances"]] == [(1, "liver"), (2, "Right Kidney")]
    assert [(i["value"], i["class"]) for i in second["instances"]] == [(2, "Right Kidney")]
    assert first["split"] is None
    assert Path(first["label"]) == (dataset / "labelsTr/p1_a.nii.gz").resolve()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json"]


def test_components_get_values_of_their_own(dataset, tmp_path):
    path = msd_dataset(dataset, tmp_path / "out", rules=ClassRules("components"))
    case = json.loads(path.read_text())["cases"][0]
    assert [i["class"] for i in case["instances"]] == ["liver", "Right Kidney", "Right Kidney"]
    assert case["label"] == "labels/p1_a_instances.nii.gz"
    separate = nibabel.load(path.parent / case["label"])
    values, counts = np.unique(np.asanyarray(separate.dataobj), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 698, 1: 2, 2: 12, 3: 8}
    assert np.array_equal(separate.affine, AFFINE)


def test_a_fourth_axis_is_channels(dataset, tmp_path):
    sequences = np.stack([np.full((10, 9, 8), value, np.int16) for value in (3, 5)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(sequences, AFFINE), dataset / "imagesTr/p1_a.nii.gz")
    edit(dataset, modality={"0": "FLAIR", "1": "t1gd"})
    manifest = read_manifest(msd_dataset(dataset, tmp_path / "out"))
    scan = read_case(manifest, manifest.cases[0])
    assert manifest.modality == "MR" and scan.volume.array[:, 0, 0, 0].tolist() == [3, 5]
    assert [(o.class_name, o.mask.n_voxels) for o in scan.objects] == [("liver", 2), ("Right Kidney", 20)]


def test_small_components_are_left_out(dataset, tmp_path):
    path = msd_dataset(dataset, tmp_path / "out", rules=ClassRules("components", least_voxels=10))
    case = json.loads(path.read_text())["cases"][0]
    assert case["instances"] == [{"value": 1, "class": "Right Kidney", "part_of": None, "map": 0}]


def test_same_bytes_twice(dataset, tmp_path):
    for out in ("one", "two"):
        msd_dataset(dataset, tmp_path / out, rules=ClassRules("components"))
    label = "labels/p1_a_instances.nii.gz"
    assert (tmp_path / "one" / label).read_bytes() == (tmp_path / "two" / label).read_bytes()


def test_data_set_folder_is_not_written_to(dataset, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    msd_dataset(dataset, tmp_path / "out", rules=ClassRules("components"))
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


def test_paths_are_relative_where_the_data_lies_below(dataset):
    manifest = json.loads(msd_dataset(dataset, dataset).read_text())
    assert manifest["cases"][0]["image"] == "imagesTr/p1_a.nii.gz"


def test_split_by_patient(dataset, tmp_path):
    rule = SplitRule(test=("p2",))
    path = msd_dataset(dataset, tmp_path / "out", splits=rule, patient_of=lambda case: case.split("_")[0])
    assert [(c["patient"], c["split"]) for c in json.loads(path.read_text())["cases"]] == [
        ("p1", "train"),
        ("p2", "test"),
    ]


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        ({"0": "CT"}, "CT"),
        ({"0": "MRI", "1": "FLAIR"}, "MR"),
        ({"0": "CT", "1": "PET"}, None),
        ({"0": "X"}, None),
        (None, None),
    ],
)
def test_modality(dataset, modality, expected):
    edit(dataset, modality=modality)
    assert read_description(dataset).modality == expected


class TestErrors:
    def refused(self, dataset, tmp_path, said):
        with pytest.raises(ReadError, match=said):
            msd_dataset(dataset, tmp_path / "out")
        assert not (tmp_path / "out" / "manifest.json").exists()

    def test_no_dataset(self, tmp_path):
        self.refused(tmp_path, tmp_path, r"dataset\.json")

    def test_no_json(self, dataset, tmp_path):
        (dataset / "dataset.json").write_text("{")
        self.refused(dataset, tmp_path, "no JSON")

    def test_no_cases(self, dataset, tmp_path):
        edit(dataset, training=[])
        self.refused(dataset, tmp_path, "training")

    def test_case_without_label(self, dataset, tmp_path):
        edit(dataset, training=[{"image": "imagesTr/p1_a.nii.gz"}])
        self.refused(dataset, tmp_path, "'image' and 'label'")

    def test_labels_the_other_way_round(self, dataset, tmp_path):
        edit(dataset, labels={"background": 0, "liver": 1})
        self.refused(dataset, tmp_path, "map numbers to names")

    def test_missing_image(self, dataset, tmp_path):
        (dataset / "imagesTr/p2_a.nii.gz").unlink()
        self.refused(dataset, tmp_path, "p2_a")

    def test_truncated_label(self, dataset, tmp_path):
        path = dataset / "labelsTr/p1_a.nii.gz"
        path.write_bytes(path.read_bytes()[:-30])
        self.refused(dataset, tmp_path, "p1_a")

    def test_unknown_value(self, dataset, tmp_path):
        replace_label(dataset, np.full((10, 9, 8), 7, np.uint8))
        self.refused(dataset, tmp_path, r"values \[7\]")

    def test_other_shape(self, dataset, tmp_path):
        replace_label(dataset, np.zeros((10, 9, 7), np.uint8))
        self.refused(dataset, tmp_path, "shape")

    def test_other_place(self, dataset, tmp_path):
        replace_label(dataset, label_map(), np.diag([2.0, 2.0, 4.0, 1.0]))
        self.refused(dataset, tmp_path, "size of their voxels")

    def test_no_whole_numbers(self, dataset, tmp_path):
        replace_label(dataset, np.full((10, 9, 8), 0.5, np.float32))
        self.refused(dataset, tmp_path, "whole numbers")


def test_abdomen_mr(medmaskrcnn_data, tmp_path):
    source = medmaskrcnn_data / "AbdomenMR"
    path = msd_dataset(source, tmp_path, splits=SplitRule(test=("chaos_03", "chaos_05")))
    manifest = json.loads(path.read_text())
    assert manifest["class_names"] == ["liver", "right kidney", "left kidney", "spleen"]
    assert manifest["modality"] == "MR" and "CHAOS" in manifest["licence"]
    assert sorted(c["id"] for c in manifest["cases"] if c["split"] == "test") == ["chaos_03", "chaos_05"]
    assert len(manifest["cases"]) == 14
    for case in manifest["cases"]:
        assert Path(case["image"]).is_file() and Path(case["label"]).is_file()
        assert [i["class"] for i in case["instances"]] == manifest["class_names"]

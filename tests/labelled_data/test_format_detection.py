"""Any labelled data to a manifest: what is recognised, what is assumed and told, what is used again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.convert import detect_format, to_manifest
from medmaskrcnn_datasets.splits import SplitRule, read_splits

SPLITS = Path(__file__).parents[2] / "benchmarks" / "splits"


def nifti(path: Path, *, values: tuple[int, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 5, 4), np.int16)
    for number, value in enumerate(values):
        array[number, 0:2, 0:2] = value
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def png(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((5, 6), value, np.uint8)).save(path)


def msd(root: Path) -> Path:
    nifti(root / "imagesTr/a.nii.gz")
    nifti(root / "labelsTr/a.nii.gz", values=(1,))
    pairs = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver"}, "training": pairs}))
    return root


def nnunet(root: Path) -> Path:
    nifti(root / "imagesTr/a_0000.nii.gz")
    nifti(root / "labelsTr/a.nii.gz", values=(1,))
    (root / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}})
    )
    return root


def coco(root: Path) -> Path:
    png(root / "a.png")
    image = {"id": 1, "file_name": "a.png", "height": 5, "width": 6}
    annotation = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cell"}]}
    (root / "labels.json").write_text(json.dumps(content))
    return root


def instance_masks(root: Path) -> Path:
    png(root / "images/a.png")
    png(root / "masks/a.png", 3)
    return root


def folder_per_image(root: Path) -> Path:
    png(root / "a/images/a.png")
    png(root / "a/masks/1.png", 255)
    return root


def semantic(root: Path) -> Path:
    nifti(root / "images/a.nii.gz")
    nifti(root / "labels/a.nii.gz", values=(2, 0, 5, 0, 5))
    return root


KINDS = {
    "msd": (msd, {"liver": 1}),
    "nnunet": (nnunet, {"liver": 1}),
    "coco": (coco, {"cell": 1}),
    "instances": (instance_masks, {"object": 1}),
    "semantic": (semantic, {"label 2": 1, "label 5": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_recognised_and_converted(kind: str, tmp_path: Path) -> None:
    make, counts = KINDS[kind]
    source = make(tmp_path / "set")
    assert detect_format(source) == kind
    told: list[str] = []
    manifest = read_manifest(to_manifest(source, tmp_path / "cache", on_event=told.append))
    report = check_manifest(manifest, workers=1)
    report.raise_if_bad()
    assert {row.class_name: row.objects for row in report.class_rows()} == counts
    assert "is taken for" in told[0] and "20% test, 10% validation" in told[1]
    assert any("label 2, label 5" in text for text in told) is (kind == "semantic")


def test_a_folder_per_image_and_files_by_themselves(tmp_path: Path) -> None:
    assert detect_format(folder_per_image(tmp_path / "dsb")) == "instances"
    assert detect_format(coco(tmp_path / "coco") / "labels.json") == "coco"
    source = msd(tmp_path / "msd")
    assert detect_format(source / "dataset.json") == "msd"
    assert detect_format(source / "imagesTr/a.nii.gz") is None
    assert read_manifest(to_manifest(source / "dataset.json", tmp_path / "out")).class_names == ("liver",)


def test_missing_files_are_named_by_the_right_adapter(tmp_path: Path) -> None:
    source = msd(tmp_path / "msd")
    (source / "imagesTr/a.nii.gz").unlink()
    assert detect_format(source) == "msd"
    with pytest.raises(ReadError, match=r"1 of 1 cases cannot be read\n.*imagesTr/a\.nii\.gz"):
        to_manifest(source, tmp_path / "out")


def test_a_manifest_is_given_back(tmp_path: Path) -> None:
    made = to_manifest(msd(tmp_path / "set"), tmp_path / "out")
    assert detect_format(made) == detect_format(made.parent) == "manifest"
    assert to_manifest(made, tmp_path / "x") == to_manifest(made.parent, tmp_path / "x") == made
    assert not (tmp_path / "x").exists()


def test_what_was_converted_is_used_again_until_a_file_changes(tmp_path: Path) -> None:
    source = coco(tmp_path / "set")
    told: list[str] = []

    def convert(**options) -> int:
        told.clear()
        return to_manifest(source, source / "cache", on_event=told.append, **options).stat().st_mtime_ns

    first = convert()
    assert convert() == first and "was converted before" in told[0]
    os.utime(source / "a.png", (1, 1))
    second = convert()
    assert second != first and "is taken for" in told[0]
    assert convert(splits=SplitRule(val_share=0.5)) != second


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert detect_format(tmp_path) is None and detect_format(tmp_path / "notes.txt") is None
    with pytest.raises(ReadError, match="is no labelled data set that can be recognised"):
        to_manifest(tmp_path, tmp_path / "out")
    with pytest.raises(ReadError, match="nowhere does not exist"):
        to_manifest(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("AbdomenMR", "msd"),
        ("Task04_Hippocampus", "msd"),
        ("SarcomaMR", "msd"),
        ("nuclei", "instances"),
        ("dicom", "dicom"),
    ],
)
def test_real_data_are_recognised(medmaskrcnn_data: Path, folder: str, kind: str) -> None:
    assert detect_format(medmaskrcnn_data / folder) == kind


@pytest.mark.parametrize(
    ("name", "folder", "never"),
    [
        ("nuclei", "nuclei/images", ()),
        ("hippocampus", "Task04_Hippocampus/imagesTr", ()),
        ("sarcoma", "SarcomaMR/imagesTr", ("STS_001", "STS_003", "STS_004")),
    ],
)
def test_splits_written_down_are_what_the_rule_gives(
    medmaskrcnn_data: Path, name: str, folder: str, never: tuple[str, ...]
) -> None:
    patients = [file.name.partition(".")[0] for file in (medmaskrcnn_data / folder).iterdir()]
    dealt = SplitRule(train=never, test_share=0.2, val_share=0.1).assign(patients)
    assert read_splits(SPLITS / f"{name}.json").assign(patients) == dealt
    assert {dealt[patient] for patient in never} <= {"train"}

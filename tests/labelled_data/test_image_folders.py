"""Folders of images and masks: instance masks, a file per object, maps of classes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.folders import instances_dataset, semantic_dataset
from medmaskrcnn_datasets.layouts import paired_files
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.splits import SplitRule


def picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def scan(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([1, 2, 3, 1.0])), path)


def objects(manifest: Manifest, number: int = 0) -> list[tuple[str, int]]:
    found = read_case(manifest, manifest.cases[number]).objects
    return [(one.class_name, one.mask.n_voxels) for one in found]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two pictures; the second has no object."""
    mask = np.zeros((6, 8), np.uint16)
    mask[0:2, 0:3] = 500
    mask[4:6, 5:8] = 7
    for name, values in (("w1_a", mask), ("w2_a", np.zeros_like(mask))):
        picture(tmp_path / "cells/images" / f"{name}.png", np.zeros((6, 8), np.uint8))
        picture(tmp_path / "cells/masks" / f"{name}_mask.png", values)
    return tmp_path / "cells"


def test_instance_masks(cells: Path, tmp_path: Path) -> None:
    path = instances_dataset(
        cells,
        tmp_path / "out",
        class_name="cell",
        licence="CC0-1.0",
        splits=SplitRule(test=("w2",)),
        patient_of=lambda case: case.split("_")[0],
    )
    manifest = read_manifest(path)
    assert (manifest.name, manifest.modality, manifest.licence) == ("cells", None, "CC0-1.0")
    assert [(c.id, c.patient, c.split) for c in manifest.cases] == [("w1_a", "w1", "train"), ("w2_a", "w2", "test")]
    assert objects(manifest) == [("cell", 6), ("cell", 6)] and objects(manifest, 1) == []
    assert [i.value for i in manifest.cases[0].instances] == [7, 500]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json"]  # the masks serve as they are


def test_a_file_for_each_object(tmp_path: Path) -> None:
    root = tmp_path / "stage1_train"
    for name, corners in (("0a", [(0, 0), (2, 2), (1, 1)]), ("0b", [])):
        picture(root / name / "images" / f"{name}.png", np.zeros((6, 8, 4), np.uint8))
        (root / name / "masks").mkdir()
        for number, (top, left) in enumerate(corners):
            mask = np.zeros((6, 8), np.uint8)
            mask[top : top + 2, left : left + 2] = 255
            picture(root / name / "masks" / f"{number}.png", mask)
    picture(root / "0a/masks/empty.png", np.zeros((6, 8), np.uint8))
    manifest = read_manifest(instances_dataset(root, tmp_path / "out", class_name="nucleus"))
    assert [c.id for c in manifest.cases] == ["0a", "0b"]
    assert objects(manifest) == [("nucleus", 4)] * 3 and objects(manifest, 1) == []
    assert manifest.cases[0].label_maps == (
        "labels/0a_instances.png",
        "labels/0a_instances_1.png",
    )  # the third overlaps
    assert read_case(manifest, manifest.cases[0]).volume.array.shape == (3, 1, 6, 8)


def test_maps_of_classes(tmp_path: Path) -> None:
    root = tmp_path / "kidneys"
    labels = np.zeros((4, 5, 9), np.int16)
    labels[1:3, 1:4, 0:2] = 2
    labels[1:3, 1:4, 6:9] = 3
    labels[0, 0, 4] = labels[3, 4, 4] = 1
    labels[3, 0, 0] = 9
    scan(root / "images/p1.nii.gz", np.zeros(labels.shape, np.int16))
    scan(root / "labels/p1_seg.nii", labels)
    classes = {1: "cyst", 2: "kidney", 3: "kidney"}
    manifest = read_manifest(semantic_dataset(root, tmp_path / "out", classes=classes, modality="CT"))
    assert manifest.class_names == ("cyst", "kidney") and manifest.modality == "CT"
    assert objects(manifest) == [("cyst", 1), ("cyst", 1), ("kidney", 18), ("kidney", 12)]
    rules = ClassRules("one", by_class={"cyst": "components"})
    manifest = read_manifest(semantic_dataset(root, tmp_path / "out", classes=classes, rules=rules))
    assert objects(manifest) == [("cyst", 1), ("cyst", 1), ("kidney", 30)]
    manifest = read_manifest(semantic_dataset(root, tmp_path / "out", classes=classes, rules=ClassRules("value")))
    assert objects(manifest) == [("cyst", 2), ("kidney", 12), ("kidney", 18)]
    assert manifest.cases[0].label == str(root / "labels/p1_seg.nii")


class TestErrors:
    def refused(self, root: Path, said: str) -> None:
        with pytest.raises(ReadError, match=said):
            instances_dataset(root, root.parent / "out")

    def test_images_without_masks(self, cells: Path) -> None:
        (cells / "masks/w1_a_mask.png").unlink()
        self.refused(cells, r"1 images of .*cells/images have no label map in .*masks: w1_a\.png\. A case without")

    def test_no_such_folders(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "must hold a folder of images")

    def test_no_images(self, cells: Path) -> None:
        for file in (cells / "images").iterdir():
            file.unlink()
        self.refused(cells, "images holds no file")

    def test_two_images_of_one_name(self, cells: Path) -> None:
        picture(cells / "images/w1_a.tif", np.zeros((6, 8), np.uint8))
        self.refused(cells, r"w1_a\.png and .*w1_a\.tif have one name")

    def test_another_size(self, cells: Path) -> None:
        picture(cells / "masks/w2_a_mask.png", np.zeros((8, 6), np.uint8))
        self.refused(cells, r"case 'w2_a': image \(1, 6, 8\) and label \(1, 8, 6\) differ.*w2_a_mask\.png")

    def test_colours_are_no_numbers(self, cells: Path) -> None:
        picture(cells / "masks/w2_a_mask.png", np.random.default_rng(0).integers(0, 9, (6, 8, 3)).astype(np.uint8))
        self.refused(cells, r"w2_a_mask\.png is a picture of \d+ colours, not a label map")

    def test_damaged_files(self, cells: Path) -> None:
        for name in ("images/w1_a.png", "masks/w2_a_mask.png"):
            (cells / name).write_bytes((cells / name).read_bytes()[:40])
        self.refused(cells, r"(?s)2 of 2 cases.*w1_a\.png.*w2_a_mask\.png")

    def test_a_mask_of_another_size(self, tmp_path: Path) -> None:
        picture(tmp_path / "set/a/images/a.png", np.zeros((6, 8), np.uint8))
        picture(tmp_path / "set/a/masks/1.png", np.zeros((6, 9), np.uint8))
        self.refused(
            tmp_path / "set", r"masks/1\.png is \(1, 6, 9\) voxels \(D, H, W\), its image .*a\.png is \(1, 6, 8\)"
        )
        picture(tmp_path / "set/a/images/b.png", np.zeros((6, 8), np.uint8))
        self.refused(tmp_path / "set", "must hold one image, it holds 2")

    def test_background_is_no_class(self, cells: Path) -> None:
        with pytest.raises(ValueError, match="must be 1 or more"):
            semantic_dataset(cells, cells.parent / "out", classes={0: "background"})


def test_nuclei(medmaskrcnn_data: Path) -> None:
    pairs = paired_files(medmaskrcnn_data / "nuclei/images", medmaskrcnn_data / "nuclei/masks")
    assert len(pairs) == 473 and all(image.stem == mask.stem == case for case, image, mask in pairs)

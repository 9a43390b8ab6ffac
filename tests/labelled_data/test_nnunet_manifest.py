"""Data sets in nnU-Net's raw layout, made here."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.nnunet import nnunet_dataset
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.splits import SplitRule

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
LABELS = {"background": 0, "tumour": 2, "organ": 1}


def label_map() -> np.ndarray:
    values = np.zeros((8, 7, 5), np.uint8)
    values[1:6, 1:6, 1:4] = 1
    values[2:4, 2:4, 2] = 2
    values[3, 3, 2] = 3
    return values


def make(folder: Path, cases: dict[str, np.ndarray], *, channels: int = 1, **content) -> Path:
    root = folder / "Dataset042_Tiny"
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    for name, values in cases.items():
        for channel in range(channels):
            image = np.full(values.shape, channel * 10, np.int16)
            nibabel.save(nibabel.Nifti1Image(image, AFFINE), root / f"imagesTr/{name}_{channel:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), root / f"labelsTr/{name}.nii.gz")
    names = {str(channel): f"T{channel + 1}" for channel in range(channels)}
    content = {"channel_names": names, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"} | content
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def converted(root: Path, out: Path, **options) -> Manifest:
    return read_manifest(nnunet_dataset(root, out, **options))


def two_values() -> np.ndarray:
    values = label_map()
    values[values == 3] = 2
    return values


def test_channels_and_values(tmp_path: Path) -> None:
    root = make(tmp_path, {"la_003": two_values(), "la_001": np.zeros((8, 7, 5), np.uint8)}, channels=2)
    manifest = converted(root, tmp_path / "out", splits=SplitRule(test=("la_001",)))
    assert (manifest.name, manifest.modality, manifest.class_names) == ("Tiny", "MR", ("organ", "tumour"))
    empty, full = manifest.cases
    assert (empty.id, empty.split, empty.instances) == ("la_001", "test", ())
    assert [Path(p).name for p in full.images] == ["la_003_0000.nii.gz", "la_003_0001.nii.gz"]
    assert full.label == str(root / "labelsTr/la_003.nii.gz")  # the data set's own map serves
    scan = read_case(manifest, full)
    assert scan.volume.array.shape == (2, 5, 7, 8) and scan.volume.array.max() == 10
    assert [(o.class_name, o.mask.n_voxels) for o in scan.objects] == [("organ", 71), ("tumour", 4)]


def test_regions_overlap(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    root = make(tmp_path, {"p1": label_map()}, labels=labels, regions_class_order=[1, 2, 3])
    manifest = converted(root, tmp_path / "out")
    scan = read_case(manifest, manifest.cases[0])
    assert {o.class_name: o.mask.n_voxels for o in scan.objects} == {"whole": 75, "core": 4, "enhancing": 1}
    assert manifest.cases[0].label_maps == tuple(f"labels/p1_instances{n}.nii.gz" for n in ("", "_1", "_2"))
    assert scan.absent == scan.unnamed == ()


def test_voxels_labelled_ignore(tmp_path: Path) -> None:
    root = make(tmp_path, {"p1": label_map()}, labels=LABELS | {"ignore": 3})
    manifest = converted(root, tmp_path / "out")
    assert manifest.class_names == ("organ", "tumour")
    assert [(i.value, i.ignore) for i in manifest.cases[0].instances] == [(1, False), (2, False), (3, True)]
    scan = read_case(manifest, manifest.cases[0])
    assert len(scan.objects) == 2 and [one.class_name for one in scan.ignored] == [None]


def test_label_maps_without_an_image_and_leftovers(tmp_path: Path) -> None:
    root = make(tmp_path, {name: label_map() for name in ("p1", "p2", "p3")}, labels=LABELS | {"ignore": 3})
    for folder in ("imagesTr", "labelsTr"):
        for file in list((root / folder).iterdir()):
            (root / folder / f"._{file.name}").write_bytes(b"\0\x05\x16\x07" + b"\0" * 90)
        (root / folder / "desktop.ini").write_text("[.ShellClassInfo]")
        (root / folder / ".ipynb_checkpoints").mkdir()
    (root / "dataset.json").write_bytes((root / "dataset.json").read_text().encode("utf-16"))
    assert len(converted(root, tmp_path / "out").cases) == 3
    for file in (root / "imagesTr").glob("p2_*"):
        file.unlink()
    with pytest.raises(ReadError, match=r"labelsTr holds label maps without an image CASE_0000.*: p2\. Add"):
        converted(root, tmp_path / "out")


def test_version_1_and_inner_objects(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "liver", "2": "tumour"}
    root = make(tmp_path, {"p1": two_values()}, labels=labels, channel_names=None, modality={"0": "CT"})
    manifest = converted(root, tmp_path / "out", rules=ClassRules(within={"tumour": "liver"}))
    assert manifest.modality == "CT"
    scan = read_case(manifest, manifest.cases[0])
    assert {o.class_name: o.mask.n_voxels for o in scan.objects} == {"liver": 75, "tumour": 4}


def test_two_values_of_one_class(tmp_path: Path) -> None:
    root = make(tmp_path, {"p1": two_values()})
    rules = ClassRules(rename={"organ": "kidney", "tumour": "kidney"})
    manifest = converted(root, tmp_path / "out", rules=rules)
    assert manifest.class_names == ("kidney",)
    assert [(i.value, i.class_name) for i in manifest.cases[0].instances] == [(1, "kidney"), (2, "kidney")]


class TestErrors:
    def refused(self, root: Path, said: str) -> None:
        with pytest.raises(ReadError, match=said):
            nnunet_dataset(root, root.parent / "out")

    def test_a_channel_is_missing(self, tmp_path: Path) -> None:
        root = make(tmp_path, {"p1": two_values()}, channels=2)
        (root / "imagesTr/p1_0000.nii.gz").unlink()
        self.refused(root, r"case 'p1' has the channels \[1\] in .*imagesTr, wanted are 0000 to 0001")

    def test_a_label_is_missing(self, tmp_path: Path) -> None:
        root = make(tmp_path, {"p1": two_values()})
        (root / "labelsTr/p1.nii.gz").unlink()
        self.refused(root, r"case 'p1' has no label map .*labelsTr/p1\.nii\.gz")

    def test_no_images(self, tmp_path: Path) -> None:
        self.refused(make(tmp_path, {}), "holds no image named CASE_0000")

    def test_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS}))
        self.refused(tmp_path, "imagesTr does not exist")

    def test_labels_that_are_none(self, tmp_path: Path) -> None:
        self.refused(make(tmp_path, {"p1": two_values()}, labels={"organ": "one"}), "must map names to numbers")

    def test_all_bad_cases_are_listed(self, tmp_path: Path) -> None:
        root = make(tmp_path, {name: label_map() for name in ("p1", "p2", "p3")})
        path = root / "labelsTr/p2.nii.gz"
        path.write_bytes(path.read_bytes()[:-20])
        self.refused(root, r"(?s)Tiny: 3 of 3 cases.*'p1': label values \[3\] mean nothing.*'p2': .*p2\.nii.*'p3'")

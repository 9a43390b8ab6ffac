"""What one object is where nobody says so: names of organs and findings, else what the labels show."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn_datasets.convert import ConversionOptions, to_manifest
from medmaskrcnn_datasets.objects import ClassRules


def three_blobs() -> np.ndarray:
    """An organ (1) with three separate spots (2) beside it, one of them a tenth of the others."""
    values = np.zeros((10, 20, 20), np.uint8)
    values[2:8, 2:10, 2:10] = 1
    values[2:6, 12:16, 12:16] = 2
    values[2:6, 2:6, 14:18] = 2
    values[8, 14:17, 4:7] = 2
    return values


def one_with_specks() -> np.ndarray:
    values = np.zeros((10, 20, 20), np.uint8)
    values[2:8, 2:10, 2:10] = 1
    values[2:8, 12:18, 12:18] = 2
    values[9, 19, 0] = values[0, 0, 19] = 2
    return values


def nnunet(root: Path, maps: list[np.ndarray], *names: str) -> Path:
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    for number, values in enumerate(maps):
        image = np.random.default_rng(number).normal(size=values.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(image.T, np.eye(4)), root / "imagesTr" / f"c_{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(values.T, np.eye(4)), root / "labelsTr" / f"c_{number}.nii.gz")
    labels = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    return root


def converted(root: Path, told: list[str] | None = None, **rules) -> Manifest:
    options = ConversionOptions(rules=ClassRules("auto", **rules))
    say = (told if told is not None else []).append
    return read_manifest(to_manifest(root, root.with_name(root.name + "-out"), options=options, on_event=say))


def counts(manifest: Manifest) -> dict[str, int]:
    found = [i.class_name for case in manifest.cases for i in case.instances]
    return {name: found.count(name) for name in manifest.class_names}


def test_lesions_are_objects_and_organs_are_not(tmp_path: Path) -> None:
    told: list[str] = []
    manifest = converted(nnunet(tmp_path / "set", [three_blobs()] * 8, "organ", "tumour"), told)
    assert counts(manifest) == {"organ": 8, "tumour": 24}
    assert "tumour: 8 cases, 24 separate parts, taken as 24 objects; organ: one each" in told
    again: list[str] = []
    converted(tmp_path / "set", again)
    assert any("converted before" in text for text in again) and told[-1] in again  # told each time


@pytest.mark.parametrize(
    ("name", "maps", "objects"),
    [
        ("marking", [three_blobs()] * 4, 12),  # the labels decide
        ("marking", [one_with_specks()] * 4, 4),
        ("marking", [three_blobs(), *[one_with_specks()] * 9], 10),  # several parts in one case of ten
        ("spleen", [three_blobs()] * 4, 4),  # the name does
        ("left_kidney", [three_blobs()] * 4, 4),
        ("kidney", [three_blobs()] * 4, 12),
        ("liver metastasis", [three_blobs(), *[one_with_specks()] * 3], 3 + 3 * 3),
    ],
)
def test_a_class_by_its_name_or_by_its_labels(tmp_path: Path, name: str, maps: list[np.ndarray], objects: int) -> None:
    assert counts(converted(nnunet(tmp_path / "set", maps, "body", name)))[name] == objects


def test_rules_that_are_given_hold(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "set", [three_blobs()] * 2, "liver", "tumour")
    assert counts(converted(root, by_class={"tumour": "whole"})) == {"liver": 2, "tumour": 2}
    inner = three_blobs()
    inner[3, 4, 4] = 2
    root = nnunet(tmp_path / "other", [inner] * 2, "liver", "tumour")
    manifest = converted(root, by_class={"tumour": "components", "liver": "whole"}, within={"tumour": "liver"})
    objects = read_case(manifest, manifest.cases[0]).objects
    assert [one.mask.n_voxels for one in objects if one.class_name == "liver"] == [6 * 8 * 8]
    with pytest.raises(ValueError, match="rules speak of classes"):
        converted(root, by_class={"spleen": "whole"})


def test_a_map_of_single_parts_serves_as_it_is(tmp_path: Path) -> None:
    values = three_blobs()
    values[values == 2] = 0
    values[1, 1, 1] = 2
    root = nnunet(tmp_path / "set", [values], "liver", "tumour")
    assert converted(root).cases[0].label == str(root / "labelsTr/c_0.nii.gz")

"""Phantoms and label maps as NIfTI, and the data set that training reads."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn_datasets.phantom import CLASS_NAMES, make_phantom, random_settings
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset

HEADER_MM = 1e-4
"""NIfTI keeps its affine in float32."""

MAX_SHAPE = (14, 36, 36)


class TestNifti:
    def write(self, phantom, path):
        return write_nifti(phantom.volume.array[0], phantom.volume.grid, path, description=PHANTOM_GENERATOR)

    def test_nibabel_sees_the_phantom(self, phantom, tmp_path):
        image = nibabel.load(self.write(phantom, tmp_path / "ct.nii.gz"))
        assert np.array_equal(np.asanyarray(image.dataobj), phantom.volume.array[0].T)
        assert image.get_data_dtype() == np.int16
        assert image.header["descrip"].item().decode() == PHANTOM_GENERATOR
        assert image.header.get_xyzt_units()[0] == "mm"
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        i, j, k = 100, 3, 60
        expected = phantom.volume.grid.index_to_ras([k, j, i])
        assert nibabel.affines.apply_affine(image.affine, [i, j, k]) == pytest.approx(expected, abs=HEADER_MM)
        assert image.get_qform() == pytest.approx(image.get_sform(), abs=1e-3)

    def test_simpleitk_sees_the_same_place(self, phantom, tmp_path):
        image = sitk.ReadImage(str(self.write(phantom, tmp_path / "ct.nii.gz")))
        expected = phantom.volume.grid.index_to_ras([60, 3, 100]) * [-1, -1, 1]
        assert image.TransformIndexToPhysicalPoint((100, 3, 60)) == pytest.approx(expected, abs=1e-2)
        assert np.array_equal(sitk.GetArrayFromImage(image), phantom.volume.array[0])

    def test_read_volume_gives_the_phantom_back(self, phantom, tmp_path):
        volume = read_volume(self.write(phantom, tmp_path / "ct.nii.gz"))
        assert np.array_equal(volume.array, phantom.volume.array)
        assert volume.affine_vox_to_ras == pytest.approx(phantom.volume.affine_vox_to_ras, abs=HEADER_MM)
        assert volume.provenance.generator == PHANTOM_GENERATOR

    def test_same_bytes_whenever_and_wherever(self, tiny_phantom, tmp_path, monkeypatch):
        first = self.write(tiny_phantom, tmp_path / "a.nii.gz").read_bytes()
        monkeypatch.setattr("time.time", lambda: 2e9)
        assert self.write(tiny_phantom, tmp_path / "other name.nii.gz").read_bytes() == first

    def test_shear_goes_into_the_sform_alone(self, tmp_path):
        affine = np.eye(4)
        affine[1, 0] = 0.3
        image = nibabel.load(write_nifti(np.zeros((3, 4, 5), np.uint8), Grid((3, 4, 5), affine), tmp_path / "s.nii"))
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
        assert image.affine[:3, 2] == pytest.approx(affine[:3, 0])

    def test_errors(self, tiny_phantom, tmp_path):
        grid = tiny_phantom.volume.grid
        with pytest.raises(ValueError, match="shape"):
            write_nifti(np.zeros((2, 2, 2), np.uint8), grid, tmp_path / "x.nii")
        with pytest.raises(ValueError, match="79 bytes"):
            write_nifti(tiny_phantom.labels, grid, tmp_path / "x.nii", description="x" * 80)
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            write_nifti(tiny_phantom.labels, grid, tmp_path / "file" / "x.nii")
        (tmp_path / "folder.nii").mkdir()
        with pytest.raises(OutputError, match=r"folder\.nii"):
            write_nifti(tiny_phantom.labels, grid, tmp_path / "folder.nii")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.nii"]


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    return phantom_dataset(folder, [4, 9, 10], max_shape=MAX_SHAPE, val=[9], test=[10], workers=1)


class TestPhantomDataset:
    def test_manifest_names_what_is_there(self, manifest_path):
        manifest = json.loads(manifest_path.read_text())
        assert (manifest["version"], manifest["modality"]) == (1, "CT")
        assert manifest["class_names"] == list(CLASS_NAMES)
        assert [c["split"] for c in manifest["cases"]] == ["train", "val", "test"]
        assert [c["id"] for c in manifest["cases"]] == ["phantom_0004", "phantom_0009", "phantom_0010"]
        for case in manifest["cases"]:
            label = nibabel.load(manifest_path.parent / case["label"])
            image = nibabel.load(manifest_path.parent / case["image"])
            assert image.shape == label.shape and np.array_equal(image.affine, label.affine)
            values = {i["value"] for i in case["instances"]}
            assert values == set(np.unique(np.asanyarray(label.dataobj)).tolist()) - {0}
            for instance in case["instances"]:
                assert instance["class"] in CLASS_NAMES
                assert (instance["part_of"] in values) == (instance["class"] == "tumour")

    def test_files_hold_the_phantom_of_the_seed(self, manifest_path):
        expected = make_phantom(random_settings(9, max_shape=MAX_SHAPE))
        volume = read_volume(manifest_path.parent / "images" / "phantom_0009.nii.gz")
        assert np.array_equal(volume.array, expected.volume.array)

    def test_two_processes_write_the_same_bytes(self, manifest_path, tmp_path):
        seen = []
        again = phantom_dataset(
            tmp_path, [4, 9, 10], max_shape=MAX_SHAPE, val=[9], test=[10], workers=2,
            progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
        first = {p.relative_to(manifest_path.parent): p.read_bytes() for p in manifest_path.parent.rglob("*.*")}
        second = {p.relative_to(tmp_path): p.read_bytes() for p in again.parent.rglob("*.*")}
        assert first == second and len(first) == 7
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="once"):
            phantom_dataset(tmp_path, [1, 1])
        with pytest.raises(ValueError, match="val or test"):
            phantom_dataset(tmp_path, [1, 2], val=[1], test=[1])
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            phantom_dataset(tmp_path / "file", [1])

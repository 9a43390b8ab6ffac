"""Real series: what ``describe`` says of them, and their grids against truth masks, dcm2niix and SimpleITK."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import Volume

STS = [f"STS_{patient}/{kind}" for patient in ("001", "003", "004") for kind in ("CT", "MR_T1", "PET")]
FOLDERS = [*(f"{name}/image" for name in STS), "CT_JPEG2000", "generic_j2k", "generic_rle"]

WORLD_TOLERANCE_MM = 1e-3
"""Affines in NIfTI are float32 and positions in DICOM are text; what is left is far below a voxel."""

SHAPES = {
    "CT_JPEG2000": ("CT series", 20, 512, 512),
    "STS_001/CT/image": ("CT series", 59, 202, 198),
    "STS_001/MR_T1/image": ("MR series", 59, 158, 174),
    "STS_001/PET/image": ("PET series", 59, 43, 41),
    "STS_003/CT/image": ("CT series", 51, 158, 154),
    "STS_003/MR_T1/image": ("MR series", 47, 138, 121),
    "STS_003/PET/image": ("PET series", 51, 30, 29),
    "STS_004/CT/image": ("CT series", 85, 183, 173),
    "STS_004/MR_T1/image": ("MR series", 60, 127, 128),
    "STS_004/PET/image": ("PET series", 85, 46, 43),
    "generic_j2k": ("MR series", 4, 256, 256),
    "generic_rle": ("MR series", 4, 256, 256),
}


@pytest.fixture(scope="module")
def dicom(medmaskrcnn_data: Path) -> Path:
    return medmaskrcnn_data / "dicom"


def canonical(volume: Volume) -> nib.Nifti1Image:
    """A volume as NIfTI with its axes turned to R, A, S, so that flips of axes do not matter."""
    image = nib.Nifti1Image(volume.array[0].T, volume.affine_vox_to_ras[:, [2, 1, 0, 3]])
    return nib.as_closest_canonical(image)


def assert_same_place(a: nib.Nifti1Image, b: nib.Nifti1Image) -> None:
    """Origins and steps agree. (dcm2niix takes the step between slices from two float32 positions: 4e-5 mm off.)"""
    assert a.shape == b.shape
    assert np.abs(a.affine - b.affine).max() < WORLD_TOLERANCE_MM


def test_the_whole_folder_is_described(dicom):
    infos = describe(dicom)
    series = {str(Path(i.path).relative_to(dicom)): i for i in infos if i.kind.endswith("series")}
    assert {name: (i.kind, *i.shape[1:]) for name, i in series.items()} == SHAPES
    assert all(i.segmentable and i.files == i.shape[1] and i.spacing_mm for i in series.values())
    assert {i.modality for i in series.values()} == {"CT", "MR", "PT"}
    counts = Counter(i.kind for i in infos if i.path not in {s.path for s in series.values()})
    assert counts == {"RTSTRUCT": 9, "NIfTI image": 11}
    structures = {str(Path(i.path).relative_to(dicom)) for i in infos if i.kind == "RTSTRUCT"}
    assert structures == {f"{name}/mask/RS.dcm" for name in STS}
    assert not any(i.segmentable for i in infos if i.kind == "RTSTRUCT")


@pytest.mark.parametrize("name", STS)
def test_grids_are_those_of_the_truth_masks(dicom, name):
    truth = nib.load(dicom / "truth" / f"{name.replace('/', '_')}_mask.nii.gz")
    volume = read_volume(dicom / name / "image")
    assert volume.grid.shape == truth.shape[::-1]
    corners = np.array(list(product(*((0, n - 1) for n in volume.grid.shape))))
    expected = nib.affines.apply_affine(truth.affine, corners[:, ::-1])
    assert np.abs(volume.grid.index_to_ras(corners) - expected).max() < WORLD_TOLERANCE_MM
    mask = read_volume(dicom / "truth" / f"{name.replace('/', '_')}_mask.nii.gz")
    np.testing.assert_allclose(mask.affine_vox_to_ras, volume.affine_vox_to_ras, atol=WORLD_TOLERANCE_MM)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_slice_lies_where_its_own_header_says(dicom, name):
    volume = read_volume(dicom / name)
    assert len(volume.provenance.files) == volume.grid.shape[0] == len(list((dicom / name).iterdir()))
    for d, path in enumerate(volume.provenance.files):
        x, y, z = dcmread(path, stop_before_pixels=True).ImagePositionPatient
        assert np.abs(volume.grid.index_to_ras([d, 0, 0]) - [-x, -y, z]).max() < WORLD_TOLERANCE_MM


@pytest.mark.parametrize("name", ["generic_j2k", "generic_rle"])
def test_voxels_are_those_of_the_truth_image(dicom, name):
    ours = canonical(read_volume(dicom / name))
    truth = canonical(read_volume(dicom / "truth" / f"{name}.nii.gz"))
    assert_same_place(ours, truth)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(truth.dataobj))


@pytest.mark.parametrize("name", FOLDERS)
def test_dcm2niix_agrees(dicom, name, tmp_path):
    command = [
        str(Path(sys.executable).with_name("dcm2niix")),
        "-b",
        "n",
        "-f",
        "out",
        "-o",
        str(tmp_path),
        str(dicom / name),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("out*.nii")
    theirs = nib.as_closest_canonical(nib.load(path))
    ours = canonical(read_volume(dicom / name))
    assert_same_place(ours, theirs)
    np.testing.assert_allclose(np.asarray(ours.dataobj), theirs.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("name", ["STS_001/CT/image", "STS_003/MR_T1/image", "STS_004/PET/image", "generic_rle"])
def test_simpleitk_agrees(dicom, name):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(dicom / name)))
    image = reader.Execute()
    volume = read_volume(dicom / name)
    np.testing.assert_allclose(volume.array[0], sitk.GetArrayFromImage(image), rtol=1e-6)
    for index in product(*((0, n - 1) for n in image.GetSize())):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.grid.index_to_ras(index[::-1]), [-x, -y, z], atol=0.01)


def test_a_real_file_cut_short_is_named(dicom, tmp_path):
    source = sorted((dicom / "CT_JPEG2000").iterdir())
    for path in source[:5]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert read_volume(tmp_path).grid.shape == (5, 512, 512)
    middle = tmp_path / source[2].name
    middle.write_bytes(middle.read_bytes()[:100_000])
    with pytest.raises(Exception, match=source[2].name) as error:
        read_volume(tmp_path)
    assert type(error.value).__name__ == "ReadError"

"""Scans in memory: each library's own order of axes and world, against the same scan read from its file."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage
from pydicom import Dataset, dcmread

from medmaskrcnn.errors import AmbiguousInputError, ReadError
from medmaskrcnn.io.memory import as_volume
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.grid import LPS_FROM_RAS
from medmaskrcnn.structures.volume import Volume

SHAPE = (5, 6, 7)  # x, y, z in nibabel's order
EXACT_MM = 1e-9
HEADER_MM = 1e-4  # a NIfTI header holds float32


def oblique(shear: float = 0.0) -> np.ndarray:
    """An affine of x, y, z index to RAS that mixes, mirrors and moves the axes."""
    turn = np.array([[0.0, -0.8, 0.6], [1.0, 0, 0], [0, 0.6, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag([-0.7, 1.3, 2.5])
    affine[:3, 3] = [11.5, -20.25, 7.0]
    return affine


def numbers(*shape: int, dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def assert_same(found: Volume, expected: Volume, *, within_mm: float = EXACT_MM) -> None:
    assert found.array.dtype == expected.array.dtype
    assert np.array_equal(found.array, expected.array)
    assert found.spacing_mm is None if expected.spacing_mm is None else found.spacing_mm is not None
    np.testing.assert_allclose(found.affine_vox_to_ras, expected.affine_vox_to_ras, atol=within_mm)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2), (5, 6), (5, 6, 1)])
@pytest.mark.parametrize("affine", [np.diag([2.0, 3, 4, 1]), oblique(), oblique(shear=0.3)])
def test_a_nibabel_image_is_its_file(tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    image = nib.Nifti1Image(numbers(*shape), affine)
    image.to_filename(tmp_path / "scan.nii")
    expected = read_volume(tmp_path / "scan.nii")
    assert_same(as_volume(image), expected, within_mm=HEADER_MM)
    assert_same(as_volume(nib.load(tmp_path / "scan.nii")), expected)


def test_units_and_missing_orientation_of_nibabel_are_told(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(*SHAPE), oblique())
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "scan.nii")
    found = as_volume(nib.load(tmp_path / "scan.nii"))
    assert_same(found, read_volume(tmp_path / "scan.nii"))
    assert found.spacing_mm is not None and found.spacing_mm[2] == pytest.approx(0.7e-3) and found.provenance.notes
    bare = nib.Nifti1Image(numbers(*SHAPE), None)
    bare.header.set_zooms((2, 3, 4))
    bare.to_filename(tmp_path / "bare.nii")
    found = as_volume(nib.load(tmp_path / "bare.nii"))
    assert_same(found, read_volume(tmp_path / "bare.nii"))
    assert "left and right" in found.provenance.notes[0]


@pytest.mark.parametrize("kind", [nib.MGHImage, nib.Nifti2Image])
def test_other_images_of_nibabel(kind: type) -> None:
    image = kind(numbers(*SHAPE, dtype=np.float32), oblique())
    found = as_volume(image, modality="MR")
    assert found.modality == "MR" and found.grid.shape == SHAPE[::-1]
    point = (1, 2, 3)
    assert found.array[0, 3, 2, 1] == image.get_fdata()[point]
    np.testing.assert_allclose(
        found.grid.index_to_ras(point[::-1]), nib.affines.apply_affine(image.affine, point), atol=HEADER_MM
    )


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("components", [1, 3])
def test_a_sitk_image_is_its_file(tmp_path: Path, suffix: str, components: int) -> None:
    shape = SHAPE[::-1] if components == 1 else (*SHAPE[::-1], components)
    image = sitk.GetImageFromArray(numbers(*shape, dtype=np.uint8), isVector=components > 1)
    image.SetSpacing((0.7, 1.3, 2.5))
    image.SetOrigin((3.0, -4, 5))
    image.SetDirection((0, -1, 0, 0.8, 0, -0.6, 0.6, 0, 0.8))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    found, expected = as_volume(image), read_volume(tmp_path / f"scan{suffix}")
    assert_same(found, expected)
    assert found.channel_kind == expected.channel_kind
    point = (1, 2, 3)
    lps = image.TransformIndexToPhysicalPoint(point)
    np.testing.assert_allclose(found.grid.index_to_ras(point[::-1]), (-lps[0], -lps[1], lps[2]))


def test_sitk_images_of_two_and_four_axes() -> None:
    flat = sitk.GetImageFromArray(numbers(4, 5))
    flat.SetSpacing((0.5, 0.5))
    found = as_volume(flat)
    assert found.array.shape == (1, 1, 4, 5) and found.spacing_mm is None and found.provenance.notes
    series = sitk.GetImageFromArray(numbers(2, 3, 4, 5), isVector=False)
    series.SetSpacing((1.0, 2.0, 3.0, 9.0))
    found = as_volume(series)
    assert found.array.shape == (2, 3, 4, 5) and found.spacing_mm == (3.0, 2.0, 1.0)
    assert np.array_equal(found.array, numbers(2, 3, 4, 5))


def test_a_metatensor_is_its_file(tmp_path: Path) -> None:
    nib.Nifti1Image(numbers(*SHAPE), oblique()).to_filename(tmp_path / "scan.nii")
    expected = read_volume(tmp_path / "scan.nii")
    without_channel = LoadImage(reader="NibabelReader", image_only=True, dtype=np.int16)(tmp_path / "scan.nii")
    for image in (without_channel, EnsureChannelFirst()(without_channel)):
        assert_same(as_volume(image), expected, within_mm=HEADER_MM)


def test_the_space_of_a_metatensor_counts() -> None:
    values, affine = torch.as_tensor(numbers(2, *SHAPE)), oblique()
    in_ras = as_volume(MetaTensor(values, affine=affine))
    in_lps = as_volume(MetaTensor(values, affine=LPS_FROM_RAS @ affine, meta={"space": "LPS"}))
    assert_same(in_lps, in_ras)
    assert in_ras.array.shape == (2, *SHAPE[::-1])
    with pytest.raises(ValueError, match="scanner"):
        as_volume(MetaTensor(values, affine=affine, meta={"space": "scanner"}))
    with pytest.raises(ValueError, match="one scan of a batch"):
        as_volume(MetaTensor(values[None], affine=affine))
    assert as_volume(MetaTensor(values)).provenance.notes  # MONAI's default is told


def test_an_array_keeps_its_axes() -> None:
    affine, array = oblique(), numbers(*SHAPE)
    by_affine = as_volume(array, affine=affine)
    assert by_affine.grid.shape == SHAPE
    np.testing.assert_array_equal(by_affine.affine_vox_to_ras, affine)
    of_nibabel = as_volume(nib.Nifti1Image(array, affine))  # the same scan, turned
    np.testing.assert_allclose(by_affine.grid.index_to_ras((1, 2, 3)), of_nibabel.grid.index_to_ras((3, 2, 1)))
    assert by_affine.array[0, 1, 2, 3] == of_nibabel.array[0, 3, 2, 1]


def test_an_array_with_a_spacing_lies_as_sitk_has_it() -> None:
    array = numbers(3, 4, 5)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 3.0))
    found = as_volume(array, spacing_mm=(3.0, 0.75, 0.5))
    assert_same(found, as_volume(image))
    assert "left and right" in found.provenance.notes[0]


@pytest.mark.parametrize(
    "make", [np.asarray, torch.as_tensor, lambda a: torch.as_tensor(a).as_subclass(torch.nn.Buffer)]
)
def test_arrays_and_tensors_without_geometry_have_none(make: Callable[[Any], Any]) -> None:
    assert as_volume(make(numbers(3, 4, 5))).spacing_mm is None
    assert as_volume(make(numbers(4, 5))).array.shape == (1, 1, 4, 5)
    assert as_volume(make(numbers(2, 3, 4, 5))).array.shape == (2, 3, 4, 5)


def test_halves_and_bfloats_become_floats() -> None:
    assert as_volume(np.ones((3, 4, 5), np.float16)).array.dtype == np.float32
    assert as_volume(torch.ones(3, 4, 5, dtype=torch.bfloat16)).array.dtype == np.float32
    assert as_volume(torch.ones(3, 4, 5, requires_grad=True)).array.dtype == np.float32


def test_datasets_are_their_files(slices: list[Dataset], tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for number, one in enumerate(slices):
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    expected = read_volume(folder)
    read = [dcmread(path) for path in sorted(folder.iterdir(), reverse=True)]
    before = [one.to_json() for one in read]
    found = as_volume(read)
    assert_same(found, expected)
    assert found.provenance.sop_instance_uids == expected.provenance.sop_instance_uids
    assert found.modality == expected.modality and found.provenance.format == "DICOM"
    assert [one.to_json() for one in read] == before
    assert all(Path(file).is_file() for file in found.provenance.files)  # exports read the headers of the series
    assert as_volume(read[0]).grid.shape[0] == 1


def test_datasets_that_form_no_volume_are_refused(slices: list[Dataset]) -> None:
    with pytest.raises(ReadError):
        as_volume([*slices[:2], *slices[4:]])  # a gap
    bare = Dataset(slices[0])
    with pytest.raises(ReadError, match="dataset 1 names no transfer syntax"):
        as_volume([slices[0], bare])
    other = deepcopy(slices)
    for one, own in zip(other, slices, strict=True):
        one.SeriesInstanceUID = "1.2.3"
        one.SOPInstanceUID = f"{own.SOPInstanceUID}.1"
    with pytest.raises(AmbiguousInputError):
        as_volume([*slices, *other])
    assert as_volume([*slices, *other], series="1.2.3").provenance.series_uid == "1.2.3"


def test_what_is_no_scan_is_refused() -> None:
    for wrong, error in (
        ("text", TypeError),
        ([], TypeError),
        (3, TypeError),
        (np.ones(5), ValueError),
        (np.ones((2, 2, 3, 4, 5)), ValueError),
        (np.ones((3, 4, 5), complex), TypeError),
        (np.ones((3, 4, 5), bool), TypeError),
        (np.ones((30, 40, 3), np.uint8), ValueError),
    ):
        with pytest.raises(error):
            as_volume(wrong)
    for keywords in (
        {"spacing_mm": (1, 1)},
        {"spacing_mm": (1, 1, 0)},
        {"spacing_mm": (1, np.nan, 1)},
        {"affine": np.zeros((4, 4))},
        {"affine": np.eye(3)},
        {"affine": np.eye(4), "spacing_mm": (1, 1, 1)},
    ):
        with pytest.raises(ValueError, match=r"affine|spacing_mm"):
            as_volume(np.ones((3, 4, 5)), **keywords)
    with pytest.raises(ValueError, match="geometry of its own"):
        as_volume(nib.Nifti1Image(numbers(*SHAPE), oblique()), spacing_mm=(1, 1, 1))

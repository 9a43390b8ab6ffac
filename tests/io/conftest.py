"""Hand-made scans that the reading tests share: small DICOM series whose every voxel is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

AXIAL = (1, 0, 0, 0, 1, 0)
ROOT = "1.2.826.0.1.3680043.8.498."


def make_slice(index: int, pixels: np.ndarray, **overrides: Any) -> Dataset:
    """A CT slice at z = 2.5 * index; keyword arguments set DICOM attributes, ``None`` deletes them."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    one.SOPClassUID = uid.CTImageStorage
    one.SOPInstanceUID = f"{ROOT}1.{index + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{ROOT}2", f"{ROOT}3", f"{ROOT}4"
    one.Modality, one.SeriesDescription, one.Manufacturer = "CT", "abdomen", "nobody"
    one.PatientName, one.PatientID = "Doe^Jane", "secret-4711"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.InstanceNumber = index + 1
    one.ImagePositionPatient = [-10.0, -20.0, 30.0 + 2.5 * index]
    one.ImageOrientationPatient = list(AXIAL)
    one.PixelSpacing = [0.8, 0.5]  # rows, columns
    one.SliceThickness = 5.0  # wrong on purpose: spacing comes from positions
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.WindowCenter, one.WindowWidth = [40, 300], [400, 1500]
    set_pixels(one, pixels)
    for keyword, value in overrides.items():
        if value is None:
            delattr(one, keyword)
        else:
            setattr(one, keyword, value)
    return one


def set_pixels(one: Dataset, pixels: np.ndarray) -> None:
    """Put ``(H, W)`` or ``(H, W, 3)`` integers into a dataset as they are."""
    bits = 8 * pixels.dtype.itemsize
    one.Rows, one.Columns = pixels.shape[:2]
    one.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    one.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        one.PlanarConfiguration = 0
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, bits, bits - 1
    one.PixelRepresentation = int(pixels.dtype.kind == "i")
    one.PixelData = pixels.tobytes()
    one["PixelData"].VR = "OW" if bits > 8 else "OB"


def save(one: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file with preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=bool(one.SOPClassUID))
    return path


@pytest.fixture
def voxels() -> np.ndarray:
    """``(6, 5, 4)`` uint16 stored values, all different."""
    return (np.arange(6 * 5 * 4, dtype=np.uint16) * 7 + 900).reshape(6, 5, 4)


@pytest.fixture
def slices(voxels: np.ndarray) -> list[Dataset]:
    """Six CT slices that hold ``voxels``, at z = 30, 32.5, ... mm."""
    return [make_slice(i, plane) for i, plane in enumerate(voxels)]


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., Path]:
    """Write datasets into a folder, by default as 000.dcm, 001.dcm, ..., and return the folder."""

    def write(datasets: list[Dataset], folder: str = "series", names: list[str] | None = None) -> Path:
        for i, one in enumerate(datasets):
            save(one, tmp_path / folder / (names[i] if names else f"{i:03d}.dcm"))
        return tmp_path / folder

    return write


@pytest.fixture
def new_slice() -> Callable[..., Dataset]:
    """``make_slice`` for tests that need slices of their own."""
    return make_slice


@pytest.fixture
def save_dicom() -> Callable[[Dataset, Path], Path]:
    """``save`` for tests that write single files."""
    return save

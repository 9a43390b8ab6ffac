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


def make_rtstruct(regions: dict[str, list[tuple[Any, ...]]], **overrides: Any) -> Dataset:
    """An RTSTRUCT: for each region's name its contours, as ``(N, 3)`` points in L, P, S mm or ``(kind, points)``."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = uid.RTStructureSetStorage, f"{ROOT}9"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.Modality = f"{ROOT}2", f"{ROOT}10", "RTSTRUCT"
    one.StructureSetROISequence, one.ROIContourSequence, one.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, f"{ROOT}4"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for contour in contours:
            kind, points = contour if isinstance(contour[0], str) else ("CLOSED_PLANAR", contour)
            item = Dataset()
            item.ContourGeometricType = kind
            item.ContourData = [f"{v:.6g}" for v in np.asarray(points, float).ravel()]
            item.NumberOfContourPoints = len(points)
            drawn.ContourSequence.append(item)
        one.StructureSetROISequence.append(region)
        one.ROIContourSequence.append(drawn)
    for keyword, value in overrides.items():
        setattr(one, keyword, value)
    return one


def make_seg(
    frames: list[tuple[tuple[float, float, float], int | None, np.ndarray]],
    names: list[str],
    *,
    kind: str = "BINARY",
    orientation: tuple[float, ...] = AXIAL,
    pixel_spacing: tuple[float, float] = (0.8, 0.5),
    slice_spacing: float | None = 2.5,
) -> Dataset:
    """A SEG from ``(position, segment number, (H, W) pixels)`` frames; for a label map the number is ``None``."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    label_map = kind == "LABELMAP"
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7" if label_map else uid.SegmentationStorage
    one.SOPInstanceUID, one.Modality, one.SegmentationType = f"{ROOT}11", "SEG", kind
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{ROOT}2", f"{ROOT}12", f"{ROOT}4"
    pixels = np.stack([f[2] for f in frames])
    one.Rows, one.Columns, one.NumberOfFrames = *pixels.shape[1:], len(frames)
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8 * pixels.dtype.itemsize
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, bits, bits - 1
    if bits == 1:
        rle_encode = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        one.PixelData = rle_encode + b"\0" * (len(rle_encode) % 2)
    else:
        one.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    one["PixelData"].VR = "OB" if bits <= 8 else "OW"
    if kind == "FRACTIONAL":
        one.SegmentationFractionalType, one.MaximumFractionalValue = "PROBABILITY", 200
    one.SegmentSequence = []
    for number, name in enumerate(names, start=1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, name, "AUTOMATIC"
        one.SegmentSequence.append(segment)
    shared, measures, turned = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(pixel_spacing), 5.0  # thicker than the step, on purpose
    if slice_spacing is not None:
        measures.SpacingBetweenSlices = slice_spacing
    turned.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
    for position, number, _ in frames:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [f"{v:.6g}" for v in position]
        group.PlanePositionSequence = [place]
        if number is not None:
            segment = Dataset()
            segment.ReferencedSegmentNumber = number
            group.SegmentIdentificationSequence = [segment]
        one.PerFrameFunctionalGroupsSequence.append(group)
    return one


@pytest.fixture
def new_rtstruct() -> Callable[..., Dataset]:
    """``make_rtstruct`` for tests."""
    return make_rtstruct


@pytest.fixture
def new_seg() -> Callable[..., Dataset]:
    """``make_seg`` for tests."""
    return make_seg

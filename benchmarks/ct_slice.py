"""A sound slice of a CT series, for benchmarks that need DICOM files."""

from __future__ import annotations

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

ROOT = "1.2.826.0.1.3680043.8.498."


def ct_slice(index: int, plane: np.ndarray, *, spacing_mm: tuple[float, float] = (0.8, 0.5)) -> Dataset:
    """Slice ``index`` of a series; ``plane`` ``(H, W)`` int16 or uint16 holds its stored values, spacing is H, W."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = uid.CTImageStorage, f"{ROOT}1.{index + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{ROOT}2", f"{ROOT}3", f"{ROOT}4"
    one.Modality, one.SeriesDescription, one.PatientName, one.PatientID = "CT", "abdomen", "x", "1"
    one.ImageType, one.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1
    one.ImagePositionPatient, one.ImageOrientationPatient = [-10.0, -20.0, 2.5 * index], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = list(spacing_mm), 2.5
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.Rows, one.Columns = plane.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    one.PixelRepresentation = int(plane.dtype.kind == "i")
    one.PixelData = plane.tobytes()
    one["PixelData"].VR = "OW"
    return one

"""Writes a phantom as a hospital exports a CT: one DICOM file per slice, numbered in random order.

CT Image Storage (PS3.3 A.3), Explicit VR Little Endian, stored values = HU + 1024 in 12 bits. UIDs are hashes of
the voxels and the grid, dates are fixed: the same phantom gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn_datasets.phantom import Phantom

INTERCEPT_HU = -1024
_DATE, _TIME = "20250101", "120000"


def write_dicom_series(
    phantom: Phantom, folder: Path | str, *, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, ...]:
    """Write the phantom's scan as a CT series.

    Args:
        phantom: Sliced along its grid's D axis. Where D does not run along the slices' normal
            (rows x columns; true for ``"SPL"``, ``"SAR"``, ...) a reader that sorts along the normal returns the
            slices reversed, with the affine to match.
        folder: Gets ``IM0001``, ``IM0002``, ..., numbered at random.
        progress: Called with the number of slices written and their total.

    Returns:
        The files in the order of D.

    Raises:
        OutputError: if the folder or a file cannot be written.
    """
    target = make_folder(folder)
    n_slices = phantom.volume.grid.shape[0]
    identity = _digest(phantom)
    numbers = np.random.default_rng(phantom.settings.seed).permutation(n_slices) + 1
    files = []
    for d in range(n_slices):
        content = _file_bytes(_slice_dataset(phantom, d, identity))
        files.append(write_bytes(target / f"IM{numbers[d]:04d}", content))
        if progress:
            progress(d + 1, n_slices)
    return tuple(files)


def _digest(phantom: Phantom) -> str:
    """A hash of voxels, grid and seed, from which the series' UIDs are derived."""
    voxels = np.ascontiguousarray(phantom.volume.array, dtype="<i2")
    parts = (voxels.data, phantom.volume.affine_vox_to_ras.astype("<f8").tobytes(), b"%d" % phantom.settings.seed)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _uid(identity: str, what: str) -> str:
    """A UUID-derived UID (PS3.5 B.2): 2.25 and a 128-bit number."""
    number = int.from_bytes(hashlib.sha256(f"{PHANTOM_GENERATOR}/{identity}/{what}".encode()).digest()[:16], "big")
    return f"2.25.{number}"


def _slice_dataset(phantom: Phantom, d: int, identity: str) -> Dataset:
    dataset = Dataset()
    _add_patient_and_study(dataset, phantom, identity)
    _add_series(dataset, identity)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = _uid(identity, f"slice {d}")
    dataset.InstanceNumber = d + 1
    _add_plane(dataset, phantom, d)
    _add_pixels(dataset, phantom, d)
    return dataset


def _add_patient_and_study(dataset: Dataset, phantom: Phantom, identity: str) -> None:
    """Patient (PS3.3 C.7.1.1), General Study (C.7.2.1) and Patient Study modules."""
    dataset.PatientName = f"PHANTOM^SEED{phantom.settings.seed:04d}"
    dataset.PatientID = f"SEED{phantom.settings.seed:04d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = _uid(identity, "study")
    dataset.StudyDate, dataset.StudyTime = _DATE, _TIME
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.StudyDescription = "Synthetic CT, no patient"


def _add_series(dataset: Dataset, identity: str) -> None:
    """General Series (C.7.3.1), Frame of Reference (C.7.4.1) and General Equipment (C.7.5.1) modules."""
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = _uid(identity, "series")
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = "Trunk portal venous"
    dataset.BodyPartExamined = "CHESTABDOMEN"
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = _uid(identity, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = PHANTOM_GENERATOR
    dataset.ManufacturerModelName = "phantom"


def _add_plane(dataset: Dataset, phantom: Phantom, d: int) -> None:
    """Image Plane module (C.7.6.2): patient axes are LPS; the position is that of the first voxel's centre."""
    to_lps = LPS_FROM_RAS @ phantom.volume.affine_vox_to_ras
    rows, columns = to_lps[:3, 1], to_lps[:3, 2]  # steps to the next row (H) and to the next column (W)
    row_mm, column_mm = float(np.linalg.norm(rows)), float(np.linalg.norm(columns))
    normal = np.cross(columns / column_mm, rows / row_mm)
    dataset.PixelSpacing = _decimal(np.array([row_mm, column_mm]))
    dataset.ImageOrientationPatient = _decimal(np.concatenate([columns / column_mm, rows / row_mm]))
    position = to_lps[:3, 3] + d * to_lps[:3, 0]
    dataset.ImagePositionPatient = _decimal(position)
    dataset.SliceLocation = _decimal(np.array([position @ normal]))[0]
    dataset.SliceThickness = _decimal(np.array([abs(to_lps[:3, 0] @ normal)]))[0]
    dataset.GantryDetectorTilt = _decimal(np.array([phantom.settings.gantry_tilt_degrees]))[0]


def _add_pixels(dataset: Dataset, phantom: Phantom, d: int) -> None:
    """General Image (C.7.6.1), Image Pixel (C.7.6.3), CT Image (C.8.2.1) and VOI LUT (C.11.2) modules."""
    stored = phantom.volume.array[0, d].astype(np.int32) - INTERCEPT_HU
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ContentDate, dataset.ContentTime = _DATE, _TIME
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDate, dataset.AcquisitionTime = _DATE, _TIME
    dataset.KVP = 120
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1, "HU"
    if phantom.volume.window:
        dataset.WindowCenter, dataset.WindowWidth = (DSfloat(v) for v in phantom.volume.window)
    dataset.PixelData = stored.astype("<u2").tobytes()


def _decimal(values: FloatArray) -> list[DSfloat]:
    """Decimal strings of at most 16 characters (PS3.5 6.2)."""
    return [DSfloat(float(v) + 0.0, auto_format=True) for v in values]


def _file_bytes(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(_uid("", "implementation"))
    dataset.file_meta.ImplementationVersionName = "MEDMASKRCNN"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

"""The DICOM series that a result was made from, whose headers are read again when a DICOM object is written.

A result holds the UIDs of its scan and nothing about the patient. Objects that go back into an archive must carry the
patient, the study and the frame of reference of the scan: these are taken from the scan's own headers when the object
is written, and stored nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.export.deidentify import deidentify
from medmaskrcnn.export.patient import valid_header
from medmaskrcnn.io.dicom.frames import Frame, frames_of_dataset
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.exceptions import words_of

_PLACE_TOLERANCE = 0.3  # fraction of the slice step that a header's plane may be off the grid's (rounded positions)


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """Headers of a scan.

    Attributes:
        headers: One per file of the scan's first channel, in slice order, without pixels.
        frames: The frame that each slice of the grid comes from, in the grid's order.
        notes: What was emptied in the headers, one sentence each; values are not quoted.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Dataset:
        """The header from which patient, study and series are taken."""
        return self.headers[0]

    @property
    def series_uid(self) -> str:
        """Series Instance UID of the scan."""
        return str(self.first.SeriesInstanceUID)

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs of the scan's files, in slice order."""
        return tuple(str(header.SOPInstanceUID) for header in self.headers)


def read_source(volume: Volume, what: str, *, without_identity: bool = False) -> SourceSeries:
    """Headers of the DICOM series that a volume was read from.

    Args:
        volume: The scan; its provenance names the files.
        what: What is to be written, for error messages: ``"a DICOM SEG"``.
        without_identity: De-identify the headers (:mod:`medmaskrcnn.export.deidentify`), so that objects made from
            them name no patient and refer to the de-identified series.

    Raises:
        OutputError: if the scan is not a DICOM series, its files are gone or changed, or it has no frame of reference.
    """
    origin = volume.provenance
    if origin.format != "DICOM" or not origin.files:
        raise OutputError(
            f"{what} belongs to a DICOM series, whose patient and study it carries; this scan is {origin.format}. "
            "Write NIfTI instead, or give the DICOM series as the scan"
        )
    if origin.policy.resampled:
        raise OutputError(
            f"{what} refers to images, and this scan was resampled from them to even slices. Write NIfTI instead"
        )
    with suppress_pydicom_warnings():
        headers = _headers(origin.files, origin.sop_instance_uids, what)
        emptied = dict.fromkeys(keyword for header in headers.values() for keyword in valid_header(header))
        if without_identity:
            for header in headers.values():
                deidentify(header)
                valid_header(header)
        frames = _frames(headers, volume, what)
    used = {frame.header.path for frame in frames}
    notes = (f"DICOM objects are written without {', '.join(emptied)}: the scan's values are not valid DICOM.",)
    return SourceSeries(
        tuple(header for path, header in headers.items() if path in used), frames, notes if emptied else ()
    )


@contextmanager
def suppress_pydicom_warnings() -> Iterator[None]:
    """Keep warnings of pydicom and highdicom out of the log: they quote values, patients' names included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _headers(files: Sequence[str], expected: Sequence[str], what: str) -> dict[Path, FileDataset]:
    headers: dict[Path, FileDataset] = {}
    for file in files:
        try:
            headers[Path(file)] = dcmread(Path(file), stop_before_pixels=True, force=True)
        except (OSError, InvalidDicomError) as error:
            raise OutputError(
                f"{what} needs the scan's headers, but {file} cannot be read again: {words_of(error)}"
            ) from error
        _complete(headers[Path(file)], file, what)
    found = tuple(dict.fromkeys(str(h.SOPInstanceUID) for h in headers.values()))
    if expected and found != tuple(expected):
        raise OutputError(f"{what} needs the scan's headers, but {Path(files[0]).parent} holds other images now")
    return headers


def _complete(header: Dataset, file: str, what: str) -> None:
    """Refuse a header without the UIDs that an object must name; their grammar is checked too (PS3.5, 9.1)."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not header.get(keyword):
            raise OutputError(f"{what} needs {keyword} of the scan, which {file} lacks. Write NIfTI instead")
        if not UID(str(header[keyword].value)).is_valid:
            raise OutputError(f"{what} needs {keyword} of the scan, which is no UID in {file}. Write NIfTI instead")
    if "SliceThickness" not in header:
        header.SliceThickness = None  # type 2; highdicom reads it from every image


def _frames(headers: Mapping[Path, FileDataset], volume: Volume, what: str) -> tuple[Frame, ...]:
    """The frame that each slice of the grid came from."""
    grid, volume_name = volume.grid, volume.provenance.policy.separated_by
    to_lps = LPS_FROM_RAS @ grid.affine_vox_to_ras
    found: dict[int, Frame] = {}
    for path, header in headers.items():
        try:
            frames = frames_of_dataset(path, header)
        except (ReadError, ValueError) as error:
            raise OutputError(f"{what} cannot be placed: {words_of(error)}") from error
        several = len(frames) > 1
        for frame in frames:
            if not frame.has_plane or (several and not _belongs_to(frame, volume_name)):
                continue
            d = _slice_at(frame.position_lps_mm, to_lps, grid)
            if several and d in found:
                raise OutputError(f"{what} must name its images, and {_twice(found[d], frame)}. Write NIfTI instead")
            if d is not None:
                found.setdefault(d, frame)
    missing = [d for d in range(grid.shape[0]) if d not in found]
    if missing:
        raise OutputError(
            f"{what} needs the place of each slice, but no image of the series lies at slice {missing[0] + 1} of "
            f"{grid.shape[0]}. A resampled scan has no DICOM images to refer to: write NIfTI instead"
        )
    return tuple(found[d] for d in range(grid.shape[0]))


def _slice_at(position_lps_mm: Sequence[float], to_lps: FloatArray, grid: Grid) -> int | None:
    """Index of the grid's slice at a position; ``None`` if there is none."""
    index = np.linalg.solve(to_lps[:3, :3], np.subtract(position_lps_mm, to_lps[:3, 3]))
    d = round(float(index[0]))
    off_mm = float(np.linalg.norm(to_lps[:3, :3] @ (index - [d, 0, 0])))
    return d if 0 <= d < grid.shape[0] and off_mm < _PLACE_TOLERANCE * grid.voxel_size[0] else None


def _belongs_to(frame: Frame, volume_name: str) -> bool:
    """Whether a frame belongs to the volume that was read: ``"EchoTime 4.6"``, or several values joined by commas."""
    for condition in filter(None, volume_name.split(", ")):
        keyword, _, wanted = condition.partition(" ")
        value = frame.dimensions.get(keyword)
        if value is not None and (f"{value:g}" if isinstance(value, float) else value or "unset") != wanted:
            return False
    return True


def _twice(first: Frame, second: Frame) -> str:
    image = first.header.sop_instance_uid
    return f"frames {first.index + 1} and {second.index + 1} of image {image} lie at one place"

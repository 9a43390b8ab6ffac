"""Reads segmentations of other programs, DICOM SEG and RTSTRUCT, onto the grid of the scan they belong to.

Such a file refers to its scan only by UID. The scan is searched for among the open layers, beside the file and in the
neighbouring folders; without it a segmentation has no grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.io.dicom.deflated import check_deflated
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.new_review import labels_as_result

KINDS = ("RTSTRUCT", "SEG")
_FOLDERS_UP = 3
_MOST_FILES = 5000
"""A folder with more files is not searched: it is probably not a study."""


def labels_with_scan(path: Path, known: Sequence[Volume]) -> tuple[CaseResult, Volume]:
    """A SEG or RTSTRUCT as a result, and its scan.

    Args:
        path: The file.
        known: Scans that are open already.

    Raises:
        ReadError: if the scan is not found, or the file is damaged or does not belong to any of the scans.
    """
    check_deflated(path)
    wanted = referenced_series(dcmread(path, stop_before_pixels=True))
    fitting = [volume for volume in known if volume.provenance.series_uid in wanted]
    volume = fitting[0] if fitting else _scan_nearby(path, wanted)
    return labels_as_result(read_labels(path, volume), volume), volume


def referenced_series(dataset: Dataset) -> set[str]:
    """Series Instance UIDs (0020,000E) that a SEG or RTSTRUCT refers to, wherever it names them."""
    found = {str(item.get("SeriesInstanceUID", "")) for item in dataset.get("ReferencedSeriesSequence") or []}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                found.add(str(series.get("SeriesInstanceUID", "")))
    return found - {""}


def _scan_nearby(path: Path, wanted: set[str]) -> Volume:
    for folder in _folders_near(path):
        try:
            scans = [info for info in describe(folder) if info.segmentable and info.series_uid in wanted]
        except MedMaskRCNNError:
            continue
        if scans:
            return read_volume(scans[0].path, series=scans[0].series_uid)
    raise ReadError(
        f"the scan that {path.name} belongs to was not found: it is neither open nor in a folder near the file. "
        "Open the scan first"
    )


def _folders_near(path: Path) -> Iterator[Path]:
    for folder in list(path.resolve().parents)[:_FOLDERS_UP]:
        files = 0
        for files, _ in enumerate(folder.rglob("*"), start=1):
            if files > _MOST_FILES:
                return
        if files:
            yield folder

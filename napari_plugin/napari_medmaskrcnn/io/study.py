"""The series of a study as a list to choose from: description, date, slices and a small picture of the middle slice."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from medmaskrcnn.io.discover import FoundScan, find_scans
from napari_medmaskrcnn.io.reader import layer_name

THUMBNAIL_PX = 64
_PERCENTILES = (1, 99)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Series:
    """One series that can be opened.

    Attributes:
        scan: The scan, with its reader.
        name: Name of its layer; nothing of the patient is in it.
        description: Series Description (0008,103E), or the file's name.
        date: Of the series or the study, ``"2023-05-17"``; "" where it is not told.
        size: Slices, rows and columns.
        thumbnail: ``(h, w)`` uint8, the middle slice; ``None`` if it cannot be decoded from a file alone.
    """

    scan: FoundScan
    name: str
    description: str
    date: str
    size: str
    thumbnail: NDArray[np.uint8] | None


def series_of(path: Path) -> list[Series]:
    """The series below a file or folder; raises the errors of ``find_scans``."""
    scans = [one for one in find_scans(path) if one.info.segmentable]
    return [_series(scan, number if len(scans) > 1 else None) for number, scan in enumerate(scans, start=1)]


def _series(scan: FoundScan, number: int | None) -> Series:
    info = scan.info
    date, thumbnail = "", None
    if info.format == "DICOM" and scan.files:
        date, thumbnail = _look_into(scan.files[len(scan.files) // 2])
    size = "" if info.shape is None else " x ".join(str(n) for n in info.shape[1:])
    part = f" {scan.part}" if scan.part else ""
    told = info.description or ("" if info.format == "DICOM" else Path(info.path).name)  # a folder may be the patient's
    return Series(scan, layer_name(info, number), told + part, date, size, thumbnail)


def _look_into(file: Path) -> tuple[str, NDArray[np.uint8] | None]:
    try:
        dataset = dcmread(file)
    except Exception as error:  # whatever is wrong with it, the series is listed
        logger.info("%s: no thumbnail: %s", file, error)
        return "", None
    day = str(dataset.get("SeriesDate") or dataset.get("StudyDate") or "")
    date = f"{day[:4]}-{day[4:6]}-{day[6:8]}" if len(day) == 8 else day
    try:
        return date, small_picture(dataset.pixel_array)
    except Exception as error:  # a codec that is missing, a damaged frame
        logger.info("%s: no thumbnail: %s", file, error)
        return date, None


def small_picture(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A slice in grey, at most :data:`THUMBNAIL_PX` wide; of several frames the middle one, of colours the mean."""
    array = np.asarray(pixels, np.float32)
    if array.ndim > 2 and array.shape[-1] in (3, 4):
        array = array[..., :3].mean(axis=-1)
    while array.ndim > 2:
        array = array[len(array) // 2]
    step = max(1, -(-max(array.shape) // THUMBNAIL_PX))
    array = array[::step, ::step]
    low, high = np.percentile(array, _PERCENTILES)
    return (np.clip((array - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)

"""Entry point for reading: any file or folder with a scan in it becomes a Volume.

A file's format is detected from its bytes, the files of a series from their headers. Voxels are neither
reordered nor resampled, and geometry is never invented: what cannot be read exactly is refused with the reason.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from medmaskrcnn.errors import AmbiguousInputError, ReadError, Remedy
from medmaskrcnn.io.discover import FoundScan, find_scans
from medmaskrcnn.io.options import ReadingOptions
from medmaskrcnn.structures.volume import Volume

_LISTED = 40


def read_volume(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    resample_irregular: bool = False,
    suv: bool = False,
    merge_series: bool = False,
    drop_duplicates: bool = False,
) -> Volume:
    """Read one scan.

    Args:
        path: A file (DICOM, NIfTI, NRRD, MetaImage, PNG, TIFF, JPEG), a folder that holds a DICOM series, or a folder
            with several scans of which ``series`` selects one; a DICOMDIR; a zip archive of any of these.
        series: A Series Instance UID, the scan's number in the list that the error for several scans prints
            (from 1), or ``"largest"``: the scan with the most voxels.
        resample_irregular: Interpolate a DICOM series with missing, duplicated or unevenly spaced slices to even
            spacing, instead of refusing it; the Volume's provenance notes it.
        suv: Return PET as standardised uptake values by body weight (g/mL).
        merge_series: Read slices that are one even stack as one series, although their Series Instance UIDs or frames
            of reference differ; the Volume's provenance notes it.
        drop_duplicates: Leave out images that repeat another at their position, pixel for pixel, instead of refusing
            the series; the Volume's provenance notes it.

    Returns:
        The Volume: ``(C, D, H, W)`` as stored, with its affine to R, A, S in mm. Slices of a DICOM series are
        sorted along their normal. Spacing is ``None`` if the file does not give it.

    Raises:
        AmbiguousInputError: if there are several scans and ``series`` is not given; the message lists them.
        ReadError: if there is no scan, or it is damaged or has no regular grid; the message names the file.
    """
    source = Path(path)
    found = find_scans(source, merge_series=merge_series)
    options = ReadingOptions(resample_irregular=resample_irregular, suv=suv, drop_duplicates=drop_duplicates)
    return choose(source, found, series).read(options)


def choose(path: Path, found: Sequence[FoundScan], series: str | None) -> FoundScan:
    """Select the requested scan, by the rules of :func:`read_volume`."""
    candidates = _candidates(path, found)
    if series is None:
        if len(candidates) == 1:
            return candidates[0]
        raise AmbiguousInputError(
            f"{path} holds {len(candidates)} scans:\n{_listing(candidates)}", Remedy.CHOOSE_SERIES
        )
    if series == "largest":
        return max(candidates, key=lambda f: math.prod(f.info.shape) if f.info.shape else 0)
    if series.isdigit() and 1 <= int(series) <= len(candidates):
        return candidates[int(series) - 1]
    named = [f for f in found if f.info.series_uid == series]
    chosen = [f for f in candidates if f in named] or named
    if len(chosen) > 1:
        raise AmbiguousInputError(
            f"{path} holds series {series} more than once, so choose by number:\n{_listing(candidates)}",
            Remedy.CHOOSE_SERIES,
        )
    if not chosen:
        raise ReadError(f"{path} holds no series {series!r}, only:\n{_listing(candidates)}", Remedy.CHOOSE_SERIES)
    return chosen[0]


def _candidates(path: Path, found: Sequence[FoundScan]) -> list[FoundScan]:
    """The scans, or pictures if there are no scans; for a single file any image."""
    for role in ("scan", "picture"):
        if candidates := [f for f in found if f.role == role]:
            return candidates
    if path.is_file():
        return list(found)
    damaged = next((f for f in found if f.role == "damaged"), None)
    if damaged is not None:
        return [damaged]
    reasons = "; ".join(f"{Path(f.info.path).name}: {f.info.reason}" for f in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise ReadError(f"{path} holds no scan. {reasons}{more}")


def _listing(candidates: Sequence[FoundScan]) -> str:
    """One line per scan: number, modality, extents, description, UID, path."""
    lines = []
    for number, found in enumerate(candidates[:_LISTED], start=1):
        info = found.info
        extents = (
            "unknown size" if info.shape is None else f"{info.shape[1]} slices of {info.shape[2]} x {info.shape[3]}"
        )
        parts = [info.kind, extents, info.description, info.series_uid and f"UID {info.series_uid}", f"in {info.path}"]
        trouble = f" (cannot be read: {info.reason})" if info.reason else ""
        lines.append(f"  {number}. {', '.join(p for p in parts if p)}{trouble}")
    if len(candidates) > _LISTED:
        lines.append(f"  ... and {len(candidates) - _LISTED} more")
    return "\n".join(lines)

"""Cine series: one slice position over time, processed by a 2D or 2.5D model as if time were depth.

A multi-frame ultrasound is already read this way. A cine MR has one slice per time point, which are read as separate
scans and stacked here, frame by frame, to a film. The film's first axis is time, so it has no position in the patient
and its instances have no volume: sizes are in pixels, and :mod:`medmaskrcnn.export.tracks` computes the areas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import FoundScan, find_scans
from medmaskrcnn.io.options import ReadingOptions
from medmaskrcnn.io.read import choose
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Film, Volume

_NOTE = "A cine series: the first axis is time. Sizes are in pixels; areas of each frame stand in tracks.csv."


def read_scan(path: Path, options: SegmentOptions) -> Volume:
    """Read the scan at ``path`` as :func:`medmaskrcnn.read_volume` does, or with ``track`` a cine series as a film.

    Raises:
        AmbiguousInputError: if there are several scans and ``options.series`` selects none; the message lists them.
        ReadError: if there is no scan, or it is damaged or has no regular grid.
    """
    found = find_scans(path, merge_series=options.merge_series)
    films = cine_series(found) if options.track else {}
    if options.series in films:
        return read_cine(films[options.series])
    if (
        options.series is None
        and len(films) == 1
        and all(s.info.series_uid in films for s in found if s.role == "scan")
    ):
        return read_cine(*films.values())
    scan = choose(path, found, options.series)
    if scan.info.series_uid in films:
        return read_cine(films[scan.info.series_uid])
    return scan.read(reading_options(options))


def reading_options(options: SegmentOptions) -> ReadingOptions:
    """The options for reading among those of a segmentation."""
    return ReadingOptions(
        resample_irregular=options.resample_irregular,
        suv=options.suv,
        merge_series=options.merge_series,
        drop_duplicates=options.drop_duplicates,
    )


def cine_series(scans: Iterable[FoundScan]) -> dict[str | None, list[FoundScan]]:
    """The series that show one slice at several time points: their scans in order of time, by series UID."""
    by_series: dict[str | None, list[FoundScan]] = defaultdict(list)
    for scan in scans:
        if scan.info.series_uid and scan.role in ("scan", "excluded"):
            by_series[scan.info.series_uid].append(scan)
    return {uid: members for uid, members in by_series.items() if _is_cine(members)}


def _is_cine(scans: Sequence[FoundScan]) -> bool:
    """Whether the scans of one series are one slice at several time points."""
    shapes = {scan.info.shape for scan in scans}
    shape = next(iter(shapes))
    return len(scans) > 1 and len(shapes) == 1 and shape is not None and shape[1] == 1 and all(s.part for s in scans)


def read_cine(scans: Sequence[FoundScan]) -> Volume:
    """Stack the time points of a cine series to a film ``(C, T, H, W)``.

    Args:
        scans: In order of time.

    Raises:
        ReadError: if the time points do not lie on one slice.
    """
    frames = [scan.read() for scan in scans]
    first = frames[0]
    if any(not np.allclose(f.affine_vox_to_ras, first.affine_vox_to_ras, atol=1e-3) for f in frames):
        raise ReadError("the time points of this series do not lie at one place, so it is no cine")
    array = np.concatenate([frame.array for frame in frames], axis=1)
    grid = pixel_grid((array.shape[1], array.shape[2], array.shape[3]))
    provenance = replace(
        first.provenance,
        files=tuple(file for frame in frames for file in frame.provenance.files),
        sop_instance_uids=tuple(uid for frame in frames for uid in frame.provenance.sop_instance_uids),
        notes=(_NOTE,),
    )
    size = None if first.spacing_mm is None else first.spacing_mm[1:]
    return replace(first, array=array, grid=grid, provenance=provenance, film=Film(size))

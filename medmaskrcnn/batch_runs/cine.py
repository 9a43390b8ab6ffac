"""Cine series: one place over time, walked through by a model of slices as if time were depth.

A multi-frame ultrasound is read so already. A cine MR comes as one slice per time point, which reading keeps apart:
here they are stacked, frame after frame. The stack's first axis is time, so it has no place in the patient and its
instances no volume: sizes are pixels, and ``tracks.csv`` has the areas.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medmaskrcnn.errors import ReadError, UnsuitableScanError
from medmaskrcnn.io.discover import FoundScan
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Volume

CINE = "cine"
"""What the ledger calls the part of a series that is all of its time points."""

TRACKS = "tracks.csv"
_COLUMNS = ("track", "class", "score", "frame", "area_px", "area_mm2", "centre_row", "centre_column")
_NOTE = "A cine series: the first axis is time. Sizes are in pixels; areas of each frame stand in tracks.csv."


def is_cine(scans: Sequence[FoundScan]) -> bool:
    """Whether the scans of one series are one slice at several times."""
    shapes = {scan.info.shape for scan in scans}
    shape = next(iter(shapes))
    return len(scans) > 1 and len(shapes) == 1 and shape is not None and shape[1] == 1 and all(s.part for s in scans)


def read_cine(scans: Sequence[FoundScan]) -> tuple[Volume, tuple[float, float] | None]:
    """Stack the time points of a series.

    Args:
        scans: In order of time.

    Returns:
        The film as a Volume ``(C, T, H, W)``, and the size of a pixel (row, column) in mm where it is known.

    Raises:
        ReadError: if the time points do not lie on one slice.
    """
    frames = [scan.read() for scan in scans]
    first = frames[0]
    if any(not np.allclose(f.affine_vox_to_ras, first.affine_vox_to_ras, atol=1e-3) for f in frames):
        raise ReadError("the time points of this series do not lie at one place, so it is no cine")
    array = np.concatenate([frame.array for frame in frames], axis=1)
    grid = pixel_grid((array.shape[1], array.shape[2], array.shape[3]))
    origin = first.provenance
    provenance = replace(
        origin,
        files=tuple(file for frame in frames for file in frame.provenance.files),
        sop_instance_uids=tuple(uid for frame in frames for uid in frame.provenance.sop_instance_uids),
        notes=(_NOTE,),
    )
    size = None if first.spacing_mm is None else first.spacing_mm[1:]
    return replace(first, array=array, grid=grid, provenance=provenance), size


def check_model(settings: ModelFileSettings) -> None:
    """Refuse models that do not walk through slices.

    Raises:
        UnsuitableScanError: if the model looks at volumes.
    """
    if settings.model.spatial_dims != 2:
        raise UnsuitableScanError(
            f"model {settings.card.name} works on volumes: instances can be linked along time by models of slices alone"
        )


def tracks_csv(result: CaseResult, pixel_mm: tuple[float, float] | None) -> str:
    """Area and centre of each instance in each frame that it is in; rows and columns count from 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    found = result.instances
    for i, mask in enumerate(found.masks):
        name, score = found.class_names[found.labels[i]], f"{found.scores[i]:.4f}"
        for t, frame in enumerate(mask.array):
            rows, columns = np.nonzero(frame)
            if not rows.size:
                continue
            area_mm2 = "" if pixel_mm is None else f"{rows.size * pixel_mm[0] * pixel_mm[1]:.3f}"
            centre = (f"{mask.start[1] + rows.mean():.2f}", f"{mask.start[2] + columns.mean():.2f}")
            writer.writerow([i + 1, name, score, mask.start[0] + t, rows.size, area_mm2, *centre])
    return text.getvalue()

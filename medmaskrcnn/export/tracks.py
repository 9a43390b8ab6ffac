"""Tracks of a film: where each instance is in each frame, and how large, as a table."""

from __future__ import annotations

import csv
from typing import TextIO

import numpy as np

from medmaskrcnn.structures.case_result import CaseResult

_COLUMNS = ("track", "class", "score", "frame", "area_px", "area_mm2", "centre_row", "centre_column")


def write_tracks(result: CaseResult, pixel_mm: tuple[float, float] | None, stream: TextIO) -> None:
    """Write area and centre of each instance in each frame that it is in; rows and columns count from 0.

    Args:
        result: Of a film, whose first axis is time.
        pixel_mm: Size of a pixel (row, column) in mm; ``None`` where it is unknown, then areas are in pixels alone.
        stream: Where to.
    """
    writer = csv.writer(stream, lineterminator="\n")
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

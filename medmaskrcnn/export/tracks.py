"""``tracks.csv``: area and centre of each instance in each frame of a cine series."""

from __future__ import annotations

from typing import TextIO

import numpy as np

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.system.tables import TableWriter

_COLUMNS = ("track", "class", "score", "frame", "area_px", "area_mm2", "centre_row", "centre_column")


def write_tracks(result: CaseResult, pixel_mm: tuple[float, float] | None, stream: TextIO) -> None:
    """Write area and centre of each instance in each frame it is present in; rows and columns count from 0.

    Args:
        result: Result of a cine series, whose first axis is time.
        pixel_mm: Pixel size (row, column) in mm; ``None`` if unknown, in which case areas are in pixels only.
        stream: Text stream to write to.
    """
    writer = TableWriter(stream)
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

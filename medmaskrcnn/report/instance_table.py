"""``instances.csv``: one row per instance, for spreadsheets.

Column names carry the unit: ``_mm3`` and ``_mm``, or ``_px`` where the scan's spacing is unknown; a file never mixes
the two. The centroid is in patient coordinates (R, A, S in mm); for images of unknown spacing it is in voxel
coordinates x, y, z of the label map (voxel ``i`` covers ``[i, i + 1)``).
"""

from __future__ import annotations

from typing import IO

import numpy as np

from medmaskrcnn.structures.case_result import CaseResult, Measurement
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.system.tables import TableWriter

OUT_OF_DOMAIN = "OUT OF DOMAIN: the model was not made for this kind of scan"
"""The stamp that exports carry where :attr:`RunRecord.out_of_domain` is set."""

_DIGITS = 7  # more than the precision of a float32 score or a scan's geometry


def columns(spacing_known: bool) -> tuple[str, ...]:
    """Names of the table's columns, in order."""
    if spacing_known:
        sizes = ("volume_mm3", "longest_axial_diameter_mm", "perpendicular_diameter_mm")
        place = ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm")
    else:
        sizes = ("volume_px", "longest_axial_diameter_px", "perpendicular_diameter_px")
        place = ("centroid_x_px", "centroid_y_px", "centroid_z_px")
    return ("id", "class", "score", *sizes, *place, "mean_intensity", "min_intensity", "max_intensity", "warning")


def write_table(result: CaseResult, stream: IO[str]) -> None:
    """Write the result's instances as CSV, a header line first; a value that does not exist is left empty.

    Args:
        result: The result.
        stream: Text stream opened with ``newline=""``.
    """
    found = result.candidates
    writer = TableWriter(stream)
    writer.writerow(columns(found.grid.spacing_known))
    warning = OUT_OF_DOMAIN if result.record.out_of_domain else ""
    for number, i in enumerate(result.kept, start=1):
        name, score = found.class_names[found.labels[i]], float(found.scores[i])
        figures = [_text(x) for x in (score, *_figures(result.measurements[i], found.grid))]
        writer.writerow([number, name, *figures, warning])


def centroid_xyz(measurement: Measurement, grid: Grid) -> tuple[float, float, float] | None:
    """An instance's centroid in voxel coordinates x, y, z of the label map; ``None`` if it has none."""
    if measurement.centroid_ras is None:
        return None
    d, h, w = (float(x) for x in grid.ras_to_coordinate(measurement.centroid_ras))
    return w, h, d


def _figures(m: Measurement, grid: Grid) -> list[float | None]:
    centroid = m.centroid_ras if grid.spacing_known else centroid_xyz(m, grid)
    place: tuple[float | None, ...] = centroid if centroid is not None else (None, None, None)
    sizes = (m.volume_unit3, m.longest_axial_diameter, m.perpendicular_diameter)
    return [*sizes, *place, m.mean_intensity, m.min_intensity, m.max_intensity]


def _text(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, unique=True, trim="-")

"""The result as a table, one row per instance: ``instances.csv`` and :meth:`CaseResult.to_dataframe`.

Column names carry the unit: ``_mm3`` and ``_mm``, or ``_px`` where the scan's spacing is unknown; a table never mixes
the two. The centroid is in patient coordinates (R, A, S in mm); for images of unknown spacing it is in voxel
coordinates x, y, z of the label map (voxel ``i`` covers ``[i, i + 1)``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medmaskrcnn.structures.grid import Grid

if TYPE_CHECKING:  # case_result makes tables by this file
    from medmaskrcnn.structures.case_result import CaseResult, Measurement

OUT_OF_DOMAIN = "OUT OF DOMAIN: the model was not made for this kind of scan"
"""The stamp that exports carry where :attr:`RunRecord.out_of_domain` is set."""

Cell = int | float | str | None


def columns(spacing_known: bool) -> tuple[str, ...]:
    """Names of the table's columns, in order."""
    if spacing_known:
        sizes = ("volume_mm3", "longest_axial_diameter_mm", "perpendicular_diameter_mm")
        place = ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm")
    else:
        sizes = ("volume_px", "longest_axial_diameter_px", "perpendicular_diameter_px")
        place = ("centroid_x_px", "centroid_y_px", "centroid_z_px")
    return ("id", "class", "score", *sizes, *place, "mean_intensity", "min_intensity", "max_intensity", "warning")


def rows(result: CaseResult) -> list[tuple[Cell, ...]]:
    """The rows, in the order of :func:`columns`; a value that does not exist is ``None``."""
    found = result.candidates
    warning = OUT_OF_DOMAIN if result.record.out_of_domain else ""
    return [
        (
            number,
            found.class_names[found.labels[i]],
            float(found.scores[i]),
            *_figures(result.measurements[i], found.grid),
            warning,
        )
        for number, i in enumerate(result.kept, start=1)
    ]


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

"""Size, position and intensity of each instance, measured on its cropped mask.

Definitions (clinical ones, independent of how the array is stored):

* volume: voxels times the determinant of the affine;
* centroid: mean of the voxels' centres in world coordinates;
* intensity: over the voxels of the mask, in the first channel, or the mean of the channels for colour images. Values
  that are not finite are ignored;
* longest axial diameter, after RECIST 1.1 (Eisenhauer et al. 2009): the largest distance between two points of the
  outline in an axial plane, over all axial planes (slices along the array axis closest to the patient's head-feet
  direction; the image plane for a single image). The outline follows the edges of the voxels, not their centres: the
  diameter of a single voxel is its diagonal;
* perpendicular diameter: in the same plane, the longest line at a right angle to it between two points of the convex
  outline.

Distances are measured in world coordinates, so sheared (gantry tilt) and oblique grids need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from medmaskrcnn.structures.case_result import Measurement
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray, Mask
from medmaskrcnn.structures.planes import axial_axis
from medmaskrcnn.structures.volume import Volume

_N_DIRECTIONS = 16  # caliper directions for the bounds that select the planes to measure exactly


def measure_instances(volume: Volume, instances: Instances) -> tuple[Measurement, ...]:
    """Measure each instance; the module docstring defines each quantity.

    Args:
        volume: The scan.
        instances: Objects on the scan's grid.

    Returns:
        One :class:`Measurement` per instance, in their order, in mm if the scan's spacing is known, else in pixels.

    Raises:
        ValueError: if the two grids differ.
    """
    if volume.grid != instances.grid:
        raise ValueError(f"instances lie on grid {instances.grid}, the scan on {volume.grid}; they must be the same")
    planes = axial_planes(instances.grid)
    return tuple(_measure(volume, instances, i, planes) for i in range(len(instances)))


def _measure(volume: Volume, instances: Instances, i: int, planes: AxialPlanes) -> Measurement:
    grid, mask = instances.grid, instances.masks[i]
    unit = "mm" if grid.spacing_known else "px"
    if mask.is_empty:
        return Measurement(unit, 0.0, None, None, None, None, None, None)
    longest, perpendicular = axial_diameters(mask.array, planes)
    values = _intensities(volume, mask)
    mean, low, high = (float(f(values)) for f in (np.mean, np.min, np.max)) if values.size else (None, None, None)
    return Measurement(
        unit=unit,
        volume_unit3=mask.n_voxels * grid.voxel_volume_unit3,
        longest_axial_diameter=longest,
        perpendicular_diameter=perpendicular,
        centroid_ras=_centroid(mask, grid),
        mean_intensity=mean,
        min_intensity=low,
        max_intensity=high,
    )


def _intensities(volume: Volume, mask: Mask) -> FloatArray:
    channels = volume.array[(slice(None), *mask.window)]
    if volume.channel_kind != "colour":
        channels = channels[:1]
    values = np.asarray(np.mean([channel[mask.array] for channel in channels], axis=0, dtype=np.float64))
    return np.asarray(values[np.isfinite(values)])


def _centroid(mask: Mask, grid: Grid) -> tuple[float, float, float]:
    index = []
    for axis in range(3):
        counts = np.asarray(mask.array.sum(axis=tuple(a for a in range(3) if a != axis)))
        index.append(mask.start[axis] + np.dot(counts, np.arange(len(counts))) / counts.sum())
    r, a, s = (float(x) for x in grid.index_to_ras(index))
    return r, a, s


@dataclass(frozen=True, eq=False)
class AxialPlanes:
    """The axial planes of a grid.

    Attributes:
        axis: Array axis along which they are stacked.
        to_length: ``(2, 2)``: maps index steps along a plane's rows and columns to lengths in the plane.
    """

    axis: int
    to_length: FloatArray


def axial_planes(grid: Grid) -> AxialPlanes:
    """The axial planes of a grid, in mm (pixels where spacing is unknown)."""
    axis = axial_axis(grid)
    in_plane = [a for a in range(3) if a != axis]
    # R of a QR decomposition preserves lengths in the plane at any tilt or shear
    return AxialPlanes(axis, np.linalg.qr(grid.affine_vox_to_ras[:3, in_plane]).R.T)


def axial_diameters(mask: BoolArray, of: AxialPlanes) -> tuple[float, float]:
    """Longest axial diameter of a mask crop and its perpendicular.

    Args:
        mask: ``(d, h, w)`` crop with at least one voxel.
        of: Axial planes of the crop's grid; the position of the crop in the grid does not matter.
    """
    planes, to_length = np.moveaxis(mask, of.axis, 0), of.to_length
    filled = np.asarray(planes.any(axis=2))
    first = planes.argmax(axis=2)
    last = planes.shape[2] - planes[:, :, ::-1].argmax(axis=2)
    if len(planes) == 1:
        return _diameter(_hull(filled[0], first[0], last[0], to_length))
    lower, upper = _diameter_bounds(filled, first, last, to_length)
    longest, perpendicular = 0.0, 0.0
    for plane in np.argsort(-upper, kind="stable"):
        if upper[plane] < lower.max() or upper[plane] <= longest:
            break
        hull = _hull(filled[plane], first[plane], last[plane], to_length)
        length, across = _diameter(hull)
        if length > longest:
            longest, perpendicular = length, across
    return longest, perpendicular


def _diameter_bounds(
    filled: BoolArray, first: NDArray[np.int64], last: NDArray[np.int64], to_length: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound of each plane's diameter, ``(planes,)`` each, from caliper widths in a few directions.

    The width of a shape in any direction is at most its diameter. In the direction nearest to that of the diameter, at
    most half a step away, it is at least the diameter times the cosine of that angle.
    """
    angles = np.arange(_N_DIRECTIONS) * (np.pi / _N_DIRECTIONS)
    per_row, per_column = (to_length @ (np.cos(angles), np.sin(angles)))[:, :, None, None]
    rows = np.arange(filled.shape[1])
    right, down = per_column > 0, per_row > 0
    tops = (rows + down) * per_row + np.where(right, last, first) * per_column  # (directions, planes, rows)
    bottoms = (rows + ~down) * per_row + np.where(right, first, last) * per_column
    widths = tops.max(axis=2, where=filled, initial=-np.inf) - bottoms.min(axis=2, where=filled, initial=np.inf)
    widest = np.maximum(widths.max(axis=0), 0.0)
    slack = 1 + 1e-9  # rounding must not push a bound past the exact value
    return widest / slack, widest * (slack / np.cos(np.pi / (2 * _N_DIRECTIONS)))


def _hull(filled: BoolArray, first: NDArray[np.int64], last: NDArray[np.int64], to_length: FloatArray) -> FloatArray:
    """Corners ``(V, 2)`` of the convex outline in one plane, in order around it, in mm or pixels."""
    rows = np.flatnonzero(filled)
    across, down = np.concatenate([first[rows], last[rows]]), np.concatenate([rows, rows])
    points = np.array([[down, down + 1], [across, across]], dtype=np.float64).reshape(2, -1).T
    return np.asarray((points @ to_length)[ConvexHull(points).vertices])


def _diameter(hull: FloatArray) -> tuple[float, float]:
    """Longest distance between two corners ``(V, 2)`` of a convex polygon, and its longest perpendicular."""
    apart = cdist(hull, hull)
    a, b = np.unravel_index(np.argmax(apart), apart.shape)
    along = (hull[b] - hull[a]) / apart[a, b]
    position = hull @ along
    height = hull @ np.array([-along[1], along[0]])
    sides = []
    for indices in (_walk(int(a), int(b), len(hull)), _walk(int(b), int(a), len(hull))[::-1]):
        sides.append(np.interp(position, position[indices], height[indices]))
    return float(apart[a, b]), float(np.abs(sides[0] - sides[1]).max())


def _walk(start: int, stop: int, n: int) -> list[int]:
    """Corners of a polygon with ``n`` corners on the way round from ``start`` to ``stop``, both included."""
    return [(start + k) % n for k in range((stop - start) % n + 1)]

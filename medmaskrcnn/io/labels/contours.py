"""Converts closed contours to voxels: polygons on parallel planes become a mask on a scan's grid.

All coordinates here are voxel *indices* (an integer is a voxel's centre), so a voxel belongs to a polygon exactly if
its centre lies inside. A polygon is filled by the even-odd rule: along a row, each crossing of the outline toggles
inside and outside. This handles keyholes (an outer outline joined with a hole by a channel of zero width) correctly.
A centre on an edge belongs to only one side, the same for every shape, so shapes that touch share no voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray

_NOISE_VOX = 1e-4
"""Indices are rounded to this, so that rounding errors of the affine and of decimal text do not decide on voxels."""

SAME_PLANE_VOX = 0.02
"""Contours closer than this, in slices, lie on one plane."""

_CROSSINGS_AT_ONCE = 1 << 20
"""Bounds memory where an outline zigzags across the whole image."""

_GAP_FACTOR = 1.5
"""Neighbouring contour planes farther apart than this many usual steps have nothing between them."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed outline on a plane.

    Attributes:
        plane: Index of its plane along the stacking axis, continuous.
        points: ``(N, 2)`` indices along the other two axes: rows, then columns.
        exclusive: True for CLOSEDPLANAR_XOR: its overlap with others of its plane is outside.
    """

    plane: float
    points: FloatArray
    exclusive: bool = False


def fill_polygon(points: FloatArray, shape: tuple[int, int]) -> BoolArray:
    """Pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        points: ``(N, 2)`` row and column indices, the last joined to the first; may lie outside of the image.
        shape: Rows and columns of the image.

    Returns:
        ``(H, W)`` boolean.
    """
    height, width = shape
    points = np.round(points / _NOISE_VOX) * _NOISE_VOX
    start, end = points, np.roll(points, -1, axis=0)
    # An edge crosses the rows in (low, high]: half open, so that a corner between two edges counts once.
    first, last = (
        np.clip(np.floor(bound(start[:, 0], end[:, 0])) + 1, 0, height).astype(np.int64)
        for bound in (np.minimum, np.maximum)
    )
    crossings = np.zeros(height * (width + 1), np.int64)
    ends = np.cumsum(last - first)
    for block in np.split(np.arange(len(points)), np.flatnonzero(np.diff(ends // _CROSSINGS_AT_ONCE)) + 1):
        counts = (last - first)[block]
        edge = np.repeat(block, counts)
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        a, b = start[edge], end[edge]
        column = a[:, 1] + (row - a[:, 0]) / (b[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
        entered = np.clip(np.ceil(column - _NOISE_VOX / 2), 0, width).astype(np.int64)
        crossings += np.bincount(row * (width + 1) + entered, minlength=len(crossings))
    return (np.cumsum(crossings.reshape(height, width + 1), axis=1)[:, :-1] & 1).astype(np.bool_)


def fill_plane(contours: Sequence[Contour], shape: tuple[int, int]) -> tuple[BoolArray, tuple[str, ...]]:
    """Fill all contours of one plane as one mask.

    An outline inside another is a hole, one inside the hole is filled again (DICOM leaves this open for CLOSED_PLANAR,
    PS3.3 C.8.8.6.3; every planning system does so). Outlines that overlap partly are united, unless they are XOR
    contours. Duplicates of an outline are ignored.

    Returns:
        The ``(H, W)`` mask, and notes on what was united or left out.
    """
    filled, notes = [], []
    seen: set[bytes] = set()
    for contour in contours:
        key = contour.points.tobytes()
        if key in seen:
            notes.append("outlines that are there twice count once")
            continue
        seen.add(key)
        filled.append((fill_polygon(contour.points, shape), contour.exclusive))
    filled.sort(key=lambda f: -int(f[0].sum()))
    mask = np.zeros(shape, np.bool_)
    for part, exclusive in filled:
        shared = part & mask
        if exclusive or np.array_equal(shared, part):
            mask ^= part
        else:
            if shared.any():
                notes.append("outlines that overlap in part were united")
            mask |= part
    return mask, tuple(dict.fromkeys(notes))


def fill_stack(contours: Sequence[Contour], shape: tuple[int, int, int]) -> tuple[BoolArray, tuple[str, ...]]:
    """Fill contours on parallel planes as one mask.

    Each slice takes the nearest plane that is at most half a slice away. If the contour planes are farther apart than
    the slices, the slices between two neighbouring planes are interpolated between their shapes (signed distances),
    and the outermost planes extend outwards by half their usual step. Larger gaps stay empty.

    Args:
        contours: The outlines of one structure.
        shape: Extents of the grid: stacking axis, rows, columns.

    Returns:
        ``(D, H, W)`` boolean and notes.
    """
    planes = _planes(contours)
    positions = np.array([p[0].plane for p in planes])
    notes: list[str] = []

    @lru_cache(maxsize=4)  # neighbours are reused while interpolating
    def shape_of(i: int) -> BoolArray:
        mask, told = fill_plane(planes[i], shape[1:])
        notes.extend(told)
        return mask

    step = float(np.median(np.diff(positions))) if len(positions) > 1 else 1.0
    owners = np.ceil(positions - 0.5 - _NOISE_VOX)  # the nearest slice; half way between two, the lower
    reach = range(max(0, int(positions[0] - step)), min(shape[0], int(np.ceil(positions[-1] + step)) + 1))
    stack = np.zeros(shape, np.bool_)
    n_interpolated = 0
    for k in reach:
        owned = np.flatnonzero(owners == k)
        if len(owned):
            stack[k] = shape_of(int(owned[np.abs(positions[owned] - k).argmin()]))
        elif step > 1 + SAME_PLANE_VOX and (between := _between(positions, shape_of, k, step)) is not None:
            stack[k] = between
            n_interpolated += 1
    if n_interpolated:
        notes.append(f"outlines are {step:.2f} slices apart; {n_interpolated} slices between them are interpolated")
    return stack, tuple(dict.fromkeys(notes))


def _planes(contours: Sequence[Contour]) -> list[list[Contour]]:
    """Group contours by plane, in ascending order."""
    groups: list[list[Contour]] = []
    for contour in sorted(contours, key=lambda c: c.plane):
        if groups and contour.plane - groups[-1][0].plane < SAME_PLANE_VOX:
            groups[-1].append(contour)
        else:
            groups.append([contour])
    return groups


def _between(positions: FloatArray, shape_of: Callable[[int], BoolArray], k: int, step: float) -> BoolArray | None:
    """The shape on a slice without a nearby plane, or ``None`` outside of the structure."""
    above = int(np.searchsorted(positions, k))
    below = above - 1
    apart = positions[above] - positions[below] if 0 < above < len(positions) else np.inf
    if apart <= _GAP_FACTOR * step:
        weight = float((k - positions[below]) / apart)
        return _interpolated(shape_of(below), shape_of(above), weight)
    near = int(np.abs(positions - k).argmin())
    return shape_of(near) if abs(positions[near] - k) < step / 2 - _NOISE_VOX else None


def _interpolated(a: BoolArray, b: BoolArray, weight: float) -> BoolArray:
    """Shape-based interpolation (Raya and Udupa 1990): where the weighted signed distances are inside."""
    if not a.any() or not b.any():
        return a if weight < 0.5 else b
    rows, columns = (np.flatnonzero((a | b).any(axis=axis)) for axis in (1, 0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    result = np.zeros_like(a)
    mixed = (1 - weight) * _signed_distance(a[window]) + weight * _signed_distance(b[window])
    result[window] = mixed > 0
    return result


def _signed_distance(mask: BoolArray) -> NDArray[np.float64]:
    """Distance in pixels to the outline, positive inside; the outline runs between pixels."""
    padded = np.pad(mask, 1)  # a ring of background: a full window has an outside too
    inside = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~padded)[1:-1, 1:-1]
    return np.where(mask, inside - 0.5, 0.5 - outside)

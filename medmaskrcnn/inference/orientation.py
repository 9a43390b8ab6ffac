"""Chooses which array axis becomes the network's first, second and third, and in which direction.

A model names the orientation in which it was trained. A scan is brought into it by permuting and flipping whole axes,
which is bit-exact; no voxel is interpolated. The choice depends only on the axes' directions in the patient, not on
how the file stores them, so that the same scan stored in any of 48 ways gives the network the same tensor.
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np

from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import FloatArray, Grid

Orientation = Literal["SPL", "acquisition", "as_stored"]

_SPL_ROWS = (2, 1, 0)  # rows of the affine (R, A, S) along which the network's D, H, W lie: S, A, R
_SPL_SIGNS = (1.0, -1.0, -1.0)  # and their directions: up, to the back, to the left
_TIE = 1e-4  # sums of cosines closer than this are equal: far above rounding error, 0.01 degrees from an exact tie
_DECIMALS = 3  # to which cosines are rounded when directions are compared
_THICKER = 1.001  # an axis is thicker only if its spacing is larger by more than rounding error


def choose_axes(grid: Grid, orientation: Orientation) -> AxisMap:
    """The axis map that brings a scan into a named orientation (see :class:`PreprocessSettings`)."""
    if orientation == "as_stored":
        return AxisMap((0, 1, 2), (False, False, False))
    directions = grid.affine_vox_to_ras[:3, :3] / np.asarray(grid.voxel_size)
    order = _closest_axes(directions)
    backwards = {}
    for axis, row, sign in zip(order, _SPL_ROWS, _SPL_SIGNS, strict=True):
        cosine = round(float(directions[row, axis]), _DECIMALS)
        backwards[axis] = cosine * sign < 0 if cosine else _first_is_negative(directions[:, axis])
    if orientation == "acquisition":
        order = _thickest_first(order, grid.voxel_size)
    return AxisMap(order, (backwards[order[0]], backwards[order[1]], backwards[order[2]]))


def _closest_axes(directions: FloatArray) -> tuple[int, int, int]:
    """The scan's axes that lie closest to S, A, R, each used once.

    The permutation with the largest sum of absolute cosines is chosen. Ties are broken by the axes' directions in the
    patient, compared without their sign: first of the axis chosen for S, then A, then R.
    """
    totals = {
        axes: sum(abs(float(directions[row, axis])) for row, axis in zip(_SPL_ROWS, axes, strict=True))
        for axes in permutations(range(3))
    }
    best = max(totals.values())
    equals = [axes for axes, total in totals.items() if total > best - _TIE]
    d, h, w = max(equals, key=lambda axes: tuple(_line(directions[:, axis]) for axis in axes))
    return d, h, w


def _line(direction: FloatArray) -> tuple[float, ...]:
    """A direction (R, A, S) without its sign: the first non-zero component is made positive."""
    rounded = np.round(direction, _DECIMALS)
    return tuple(float(x) + 0.0 for x in (-rounded if _first_is_negative(direction) else rounded))


def _first_is_negative(direction: FloatArray) -> bool:
    """Whether the first non-zero component (R, A, S) is negative."""
    rounded = np.round(direction, _DECIMALS)
    return bool(rounded[np.flatnonzero(rounded)[0]] < 0)


def _thickest_first(order: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Move the axis with the largest spacing to the front; ties are broken by the order S, A, R."""
    thickest = order[0]
    for axis in order[1:]:
        if spacing[axis] > spacing[thickest] * _THICKER:
            thickest = axis
    rest = [axis for axis in order if axis != thickest]
    return thickest, rest[0], rest[1]

"""Anatomical planes of a grid: which array axes are axial, coronal and sagittal, and how they are displayed.

Grids may be oblique; each rule takes the array axis closest to the required world axis. Ties (a scan rotated by
exactly 45 degrees) are broken by the axes' directions in the patient, after rounding, so that neither the order in
which a file stores its axes nor rounding errors of its affine matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from medmaskrcnn.structures.grid import FloatArray, Grid

RIGHT, ANTERIOR, SUPERIOR = 0, 1, 2
"""Rows of the affine."""

_DECIMALS = 6  # cosines equal to this many decimals count as equal

PlaneKind = Literal["axial", "coronal", "sagittal"]


@dataclass(frozen=True)
class PlaneView:
    """How to display slices along one array axis by radiological convention.

    Axial and coronal: the patient's right is on the left of the image; axial: anterior up; coronal and
    sagittal: head up; sagittal: anterior on the left.

    Attributes:
        kind: Name of the plane.
        axis: Array axis (0, 1, 2 for D, H, W) along which the slices are taken.
        row_axis, column_axis: Array axes that run down and across the image.
        flip_rows, flip_columns: Whether they are reversed for that.
        edges: Patient directions at the image's left, right, top and bottom, e.g. ``("R", "L", "A", "P")``.
    """

    kind: PlaneKind
    axis: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool
    edges: tuple[str, str, str, str]


def directions(grid: Grid) -> FloatArray:
    """``(3, 3)`` cosines between world axes R, A, S (rows) and array axes D, H, W (columns), rounded."""
    linear = grid.affine_vox_to_ras[:3, :3]
    return np.asarray(np.round(linear / np.linalg.norm(linear, axis=0), _DECIMALS))


def world_axes(grid: Grid) -> tuple[int, int, int]:
    """The array axes (0, 1, 2 for D, H, W) that lie closest to R-L, A-P and S-I; a permutation.

    S-I is assigned first, since scans are read and measured in axial planes.
    """
    cosines = directions(grid)
    superior = max(range(3), key=lambda axis: _leaning(cosines[:, axis], SUPERIOR))

    def agreement(axes: tuple[int, ...]) -> tuple[float, ...]:
        total = abs(float(cosines[RIGHT, axes[0]])) + abs(float(cosines[ANTERIOR, axes[1]]))
        return (round(total, _DECIMALS - 1), *_leaning(cosines[:, axes[1]], ANTERIOR))

    right, anterior = max(permutations(axis for axis in range(3) if axis != superior), key=agreement)
    return right, anterior, superior


def _leaning(direction: FloatArray, world: int) -> tuple[float, ...]:
    """Cosine of an axis with a world axis, then its components to the front, to the right and up.

    The axis is oriented along the world axis, so its own sign does not matter.
    """
    sense = -1.0 if direction[world] < 0 else 1.0
    along, *lean = (float(sense * direction[k]) for k in (world, ANTERIOR, RIGHT, SUPERIOR))
    return (along, *lean)


def axial_axis(grid: Grid) -> int:
    """The array axis along which axial planes are stacked: the one closest to the patient's S-I direction.

    A single image (one slice) has only its own plane, whatever its direction.
    """
    return 0 if grid.shape[0] == 1 else world_axes(grid)[SUPERIOR]


def plane_view(grid: Grid, axis: int) -> PlaneView:
    """How to display slices along array axis ``axis``; see :class:`PlaneView`."""
    axes = world_axes(grid)
    normal = axes.index(axis)
    kinds: dict[int, tuple[PlaneKind, int, int]] = {
        SUPERIOR: ("axial", ANTERIOR, RIGHT),
        ANTERIOR: ("coronal", SUPERIOR, RIGHT),
        RIGHT: ("sagittal", SUPERIOR, ANTERIOR),
    }
    kind, row_world, column_world = kinds[normal]
    row_axis, column_axis = axes[row_world], axes[column_world]
    cosines = directions(grid)
    names = {RIGHT: ("R", "L"), ANTERIOR: ("A", "P"), SUPERIOR: ("S", "I")}
    return PlaneView(
        kind=kind,
        axis=axis,
        row_axis=row_axis,
        column_axis=column_axis,
        # the world coordinate decreases down and across the image: from A to P, from S to I, from R to L
        flip_rows=bool(cosines[row_world, row_axis] > 0),
        flip_columns=bool(cosines[column_world, column_axis] > 0),
        edges=(*names[column_world], *names[row_world]),
    )

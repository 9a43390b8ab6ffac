"""Which slices the preview shows: as few as show every instance well, small tumours as well as large organs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.planes import ANTERIOR, PlaneView, axial_axis, plane_view, world_axes

MAX_AXIAL = 8
_WELL_SHOWN = 0.6  # share of an instance's largest cross-section
_FEWEST_CORONAL_ROWS = 8  # slices below which a coronal picture shows nothing


@dataclass(frozen=True)
class Plane:
    """One slice of the scan and how it is shown.

    Attributes:
        view: Direction and orientation.
        index: Slice number (from 0) along ``view.axis``.
    """

    view: PlaneView
    index: int


def choose_planes(instances: Instances) -> list[Plane]:
    """Axial planes from head to feet, then a coronal one where the scan has enough slices for it.

    Axial planes are chosen one after the other, each showing most of the instances that none before showed
    well, until every instance is shown or there are :data:`MAX_AXIAL`. Without instances: three planes evenly.
    """
    grid = instances.grid
    axial = plane_view(grid, axial_axis(grid))
    shown = cross_sections(instances, axial.axis)
    numbers = _cover(shown) if len(instances) else _evenly(grid.shape[axial.axis])
    height = grid.affine_vox_to_ras[2, axial.axis]
    planes = [Plane(axial, k) for k in sorted(numbers, reverse=bool(height > 0))]
    coronal = plane_view(grid, world_axes(grid)[ANTERIOR])
    if coronal.axis != axial.axis and grid.shape[axial.axis] >= _FEWEST_CORONAL_ROWS:
        total = cross_sections(instances, coronal.axis).sum(axis=0)
        best = int(total.argmax()) if len(instances) else grid.shape[coronal.axis] // 2
        planes.append(Plane(coronal, best))
    return planes


def cross_sections(instances: Instances, axis: int) -> FloatArray:
    """``(N, slices)``: area of each instance in each slice along ``axis``, as a share of its largest."""
    areas = np.zeros((len(instances), instances.grid.shape[axis]))
    others = tuple(a for a in range(3) if a != axis)
    for i, mask in enumerate(instances.masks):
        areas[i, instances.window(i)[axis]] = mask.sum(axis=others) / max(mask.sum(axis=others).max(initial=0), 1)
    return areas


def _cover(shown: FloatArray) -> list[int]:
    chosen: list[int] = []
    left = np.ones(len(shown), bool)
    while left.any() and len(chosen) < MAX_AXIAL:
        well = shown[left] >= _WELL_SHOWN
        # most instances first; among equals the slice that shows them largest
        gain = well.sum(axis=0) + (shown[left] * well).sum(axis=0) / (left.sum() + 1)
        chosen.append(int(gain.argmax()))
        left &= shown[:, chosen[-1]] < _WELL_SHOWN
    return chosen


def _evenly(n_slices: int) -> list[int]:
    return sorted({n_slices // 4, n_slices // 2, (3 * n_slices) // 4} if n_slices > 3 else {n_slices // 2})


def slice_position(grid: Grid, plane: Plane) -> str:
    """Where a slice lies in the patient, as on a workstation: ``"S 12.5 mm"`` is above the origin."""
    index = (np.asarray(grid.shape) - 1) / 2
    index[plane.view.axis] = plane.index
    world, letters = {"axial": (2, "SI"), "coronal": (1, "AP"), "sagittal": (0, "RL")}[plane.view.kind]
    position = float(grid.index_to_ras(index)[world])
    return f"{letters[0] if position >= 0 else letters[1]} {abs(position):.1f} mm"

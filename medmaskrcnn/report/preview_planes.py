"""Chooses the slices of the preview: few, but showing every instance well, small tumours as well as large organs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.planes import ANTERIOR, RIGHT, SUPERIOR, PlaneView, axial_axis, plane_view, world_axes
from medmaskrcnn.structures.volume import Volume

MAX_AXIAL = 8
_WORLD_AXIS = {"axial": SUPERIOR, "coronal": ANTERIOR, "sagittal": RIGHT}  # along which such slices are stacked
_WELL_SHOWN = 0.6  # share of an instance's largest cross-section
_SEEN_IN_CORONAL = 0.25  # weight of an instance that the coronal picture shows well (a column of vertebrae)
_ENOUGH = 3  # number of axial planes from which one such instance alone does not justify another
_FOREGROUND = 0.15  # grey value from which a voxel is body, not air
_MARGIN = 0.03  # of the picture's longer side, left around the body
_FEWEST_CORONAL_ROWS = 8  # slices below which a coronal picture shows nothing


@dataclass(frozen=True)
class PreviewPlane:
    """One slice of the scan and how it is shown.

    Attributes:
        view: Plane and orientation.
        index: Slice number (from 0) along ``view.axis``.
        rows, columns: Part of the slice that is shown: first voxel and last + 1 down and across the picture.
    """

    view: PlaneView
    index: int
    rows: tuple[int, int]
    columns: tuple[int, int]


def whole_plane(grid: Grid, view: PlaneView, index: int) -> PreviewPlane:
    """A whole slice, not cropped."""
    return PreviewPlane(view, index, (0, grid.shape[view.row_axis]), (0, grid.shape[view.column_axis]))


def choose_planes(instances: Instances) -> list[PreviewPlane]:
    """Axial planes from head to feet, then a coronal one where the scan has enough slices for it.

    Axial planes are chosen one after the other, each showing most of the instances that none before showed
    well, until every instance is shown or there are :data:`MAX_AXIAL`. Without instances: three planes evenly.
    """
    grid = instances.grid
    axial = plane_view(grid, axial_axis(grid))
    coronal = plane_view(grid, world_axes(grid)[ANTERIOR])
    weights = np.ones(len(instances))
    last = []
    if coronal.axis != axial.axis and grid.shape[axial.axis] >= _FEWEST_CORONAL_ROWS:
        slices, shown = cross_sections(instances, coronal)
        best = int(shown.sum(axis=0).argmax()) if len(instances) else len(slices) // 2
        weights[shown[:, best] >= _WELL_SHOWN] = _SEEN_IN_CORONAL
        last.append(whole_plane(grid, coronal, slices[best]))
    slices, shown = cross_sections(instances, axial)
    chosen = _cover(shown, weights) if len(instances) else _evenly(len(slices))
    return [whole_plane(grid, axial, slices[k]) for k in sorted(chosen)] + last


def cross_sections(instances: Instances, view: PlaneView) -> tuple[list[int], FloatArray]:
    """Slice numbers from head to feet (front to back, right to left), and how much of each instance they show.

    The order is the patient's, not the file's, so that ties are broken independently of storage.

    Returns:
        The slice numbers, and ``(N, slices)`` each instance's area in them as a share of its largest.
    """
    grid, axis = instances.grid, view.axis
    areas = np.zeros((len(instances), grid.shape[axis]))
    others = tuple(a for a in range(3) if a != axis)
    for i, mask in enumerate(instances.masks):
        own = mask.array.sum(axis=others)
        areas[i, mask.window[axis]] = own / max(own.max(initial=0), 1)
    order = list(range(grid.shape[axis]))
    if grid.affine_vox_to_ras[_WORLD_AXIS[view.kind], axis] > 0:
        order.reverse()
    return order, areas[:, order]


def _cover(shown: FloatArray, weights: FloatArray) -> list[int]:
    chosen: list[int] = []
    left = np.ones(len(shown), bool)
    while left.any() and len(chosen) < MAX_AXIAL:
        well = weights[left, None] * (shown[left] >= _WELL_SHOWN)
        # most instances first; among ties the slice that shows them largest
        gain = well.sum(axis=0) + _SEEN_IN_CORONAL * (shown[left] * well).sum(axis=0) / (left.sum() + 1)
        if len(chosen) >= _ENOUGH and gain.max() < 2 * _SEEN_IN_CORONAL:
            break
        chosen.append(int(gain.argmax()))
        left &= shown[:, chosen[-1]] < _WELL_SHOWN
    return chosen


def _evenly(n_slices: int) -> list[int]:
    return sorted({n_slices // 4, n_slices // 2, (3 * n_slices) // 4} if n_slices > 3 else {n_slices // 2})


def cut_to_body(
    planes: list[PreviewPlane], volume: Volume, instances: Instances, greys: tuple[float, float]
) -> list[PreviewPlane]:
    """Crop the air around the body, equally for all slices of one orientation; instances stay whole."""
    threshold = greys[0] + _FOREGROUND * (greys[1] - greys[0])
    cut = {}
    for view in dict.fromkeys(plane.view for plane in planes):
        slices = [oriented(volume.array[:1], p)[0] > threshold for p in planes if p.view == view]
        margin = round(_MARGIN * max(slices[0].shape)) + 1
        rows = _extent(slices, 1, instances, view.row_axis, view.flip_rows, margin)
        columns = _extent(slices, 0, instances, view.column_axis, view.flip_columns, margin)
        cut[view] = (rows, columns)
    return [PreviewPlane(p.view, p.index, *cut[p.view]) for p in planes]


def _extent(
    slices: list[NDArray[np.bool_]], across: int, instances: Instances, axis: int, flipped: bool, margin: int
) -> tuple[int, int]:
    """First and last + 1 picture row (or column) that holds body or an instance, with a margin."""
    n = instances.grid.shape[axis]
    hits = np.flatnonzero(np.any([s.mean(axis=across) > 0.01 for s in slices], axis=0))
    ends = [(int(hits[0]), int(hits[-1]) + 1)] if len(hits) else [(0, n)]
    for mask in instances.masks:
        low, high = mask.start[axis], mask.end[axis]
        ends.append((n - high, n - low) if flipped else (low, high))
    return max(0, min(low for low, _ in ends) - margin), min(n, max(high for _, high in ends) + margin)


def oriented(array: NDArray[Any], plane: PreviewPlane) -> NDArray[Any]:
    """One whole slice ``(C, rows, columns)`` of a ``(C, D, H, W)`` array, oriented for display."""
    view = plane.view
    flat = array.take(plane.index, view.axis + 1)
    rows_before_columns = view.row_axis < view.column_axis
    flat = flat if rows_before_columns else flat.transpose(0, 2, 1)
    return flat[:, :: -1 if view.flip_rows else 1, :: -1 if view.flip_columns else 1]


def slice_position(grid: Grid, plane: PreviewPlane) -> str:
    """Slice location in the patient, as on a workstation: ``"S 12.5 mm"`` is superior to the origin."""
    index = (np.asarray(grid.shape) - 1) / 2
    index[plane.view.axis] = plane.index
    world = _WORLD_AXIS[plane.view.kind]
    position = float(grid.index_to_ras(index)[world])
    return f"{('RAS' if position >= 0 else 'LPI')[world]} {abs(position):.1f} mm"

"""Resamples a scan with gantry tilt to an orthogonal grid, for programs that do not support sheared grids.

With a tilted gantry each slice is shifted within its own plane relative to the one below. The slice planes stay where
they are; each slice is shifted back by interpolation along rows and columns, and the image grows to hold them all.
There is no interpolation across slices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

_SHEAR_COSINE = 1e-5


def is_tilted(grid: Grid) -> bool:
    """Whether the slices of a grid are shifted relative to each other."""
    step, rows, columns = (grid.affine_vox_to_ras[:3, k] / grid.voxel_size[k] for k in range(3))
    return max(abs(float(step @ rows)), abs(float(step @ columns))) > _SHEAR_COSINE


def regular_grid(grid: Grid) -> tuple[Grid, FloatArray]:
    """The orthogonal grid that encloses a tilted one, and the offset of each slice in it.

    Returns:
        The grid, with the same pixel size and slices, and ``(D, 2)`` rows and columns by which each slice is moved.

    Raises:
        ValueError: if rows and columns are not perpendicular.
    """
    affine = grid.affine_vox_to_ras
    step, rows, columns = (affine[:3, k] for k in range(3))
    if abs(float(rows @ columns)) > _SHEAR_COSINE * grid.voxel_size[1] * grid.voxel_size[2]:
        raise ValueError("only slices shifted against each other can be put right; rows and columns are sheared here")
    per_slice = np.array([step @ rows / (rows @ rows), step @ columns / (columns @ columns)])
    shifts = np.arange(grid.shape[0])[:, None] * per_slice
    first = np.floor(shifts.min(axis=0) + 1e-6)
    extent = np.ceil((shifts - first).max(axis=0) - 1e-6).astype(int)
    straight = affine.copy()
    straight[:3, 0] = step - per_slice[0] * rows - per_slice[1] * columns
    straight[:3, 3] = affine[:3, 3] + first[0] * rows + first[1] * columns
    d, h, w = grid.shape
    return Grid((d, h + int(extent[0]), w + int(extent[1])), straight, grid.spacing_known), shifts - first


def regular_volume(volume: Volume) -> Volume:
    """The scan on an orthogonal grid, interpolated linearly in-plane; new voxels at the edges get its minimum."""
    target, shifts = regular_grid(volume.grid)
    array = np.empty((volume.array.shape[0], *target.shape), volume.array.dtype)
    fill = float(volume.array.min())
    for channel, stored in zip(array, volume.array, strict=True):
        for d, plane in enumerate(stored):
            channel[d] = _moved(plane, shifts[d], target.shape[1:], fill, volume.array.dtype)
    note = "The tilted slices were put on an orthogonal grid by linear interpolation within each slice."
    return replace(
        volume, array=array, grid=target, provenance=replace(volume.provenance, notes=(*volume.provenance.notes, note))
    )


def regular_instances(instances: Instances) -> Instances:
    """Instances of a tilted scan on its orthogonal grid; slices move by whole voxels, so the voxel count is kept."""
    target, shifts = regular_grid(instances.grid)
    masks = []
    for mask in instances.masks:
        along, rows, columns = mask.window
        whole = np.zeros((len(mask.array), *target.shape[1:]), np.bool_)
        for k, plane in enumerate(mask.array):
            row, column = np.add(np.rint(shifts[along.start + k]).astype(int), (rows.start, columns.start)).tolist()
            whole[k, row : row + plane.shape[0], column : column + plane.shape[1]] = plane
        masks.append(Mask((along.start, 0, 0), whole).tight())
    return Instances.from_masks(target, instances.class_names, instances.labels, masks, scores=instances.scores)


def _moved(
    plane: NDArray[Any], move: FloatArray, shape: tuple[int, ...], fill: float, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """A plane ``(h, w)`` moved by ``move`` rows and columns into an image of ``shape``."""
    moved = ndimage.affine_transform(
        plane.astype(np.float64), np.ones(2), offset=-np.asarray(move), output_shape=shape, order=1, cval=fill,
        mode="grid-constant",
    )  # fmt: skip
    return np.asarray((np.rint(moved) if np.issubdtype(dtype, np.integer) else moved).astype(dtype))

"""Transfers labels stored on a grid of their own to the grid of their scan.

Writers leave out empty slices, reorient axes, write positions with few decimals, or segment a resampled copy of the
scan. If the two grids share their voxels, the labels are moved exactly; otherwise each voxel of the scan takes the
label of the voxel in which its centre lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import distances_mm, slice_affine, stack_affine
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.mask import BoolArray, Mask

_TIE_VOX = 1e-4
"""A centre exactly between two voxels goes to the lower one, regardless of rounding errors of the affines."""

_EXACT_VOX = 0.02
"""Two grids whose voxels differ by no more than this share them."""

_IN_PLANE_VOX = 0.25
"""Frames shifted by less than this within a slice match it pixel for pixel."""


@dataclass(frozen=True, eq=False)
class SliceMap:
    """The slices of single frames in a grid.

    Attributes:
        places: For each frame, its slice in :attr:`grid`.
        grid: The frames' grid; slices without a frame are empty.
        notes: Notes for the user, one sentence each.
    """

    places: tuple[int, ...]
    grid: Grid
    notes: tuple[str, ...] = ()


def map_slices(frames: Sequence[Frame], scan: Grid, *, spacing_mm: float | None) -> SliceMap:
    """Find the slices of frames, which may have duplicates and gaps.

    Args:
        frames: At least one frame, all of one object and of one orientation.
        scan: The grid that the frames probably share.
        spacing_mm: Spacing Between Slices (0018,0088) of all frames, or ``None``.

    Raises:
        ReadError: if the frames lie on no regular grid.
    """
    on_scan = _on_slices_of(frames, scan, spacing_mm)
    return on_scan if on_scan is not None else _own_lattice(frames, spacing_mm)


def _on_slices_of(frames: Sequence[Frame], scan: Grid, spacing_mm: float | None) -> SliceMap | None:
    """Slices of frames that match the scan's pixel for pixel, at most half a slice away; ``None`` for others."""
    if not scan.spacing_known:
        return None
    first = frames[0]
    shape = first.header.rows, first.header.columns
    corners = np.array([[0, 0], [shape[0] - 1, 0], [0, shape[1] - 1]], dtype=np.float64)
    offsets = corners @ np.array(
        [
            np.multiply(first.column_direction_lps, first.spacing_mm[0]),
            np.multiply(first.row_direction_lps, first.spacing_mm[1]),
        ]
    )
    positions = np.array([f.position_lps_mm for f in frames])[:, None] + offsets
    index = scan.ras_to_coordinate(positions * [-1, -1, 1]) - 0.5  # (frames, 3 corners, 3)
    if np.abs(index[:, :, 1:] - corners).max() > _IN_PLANE_VOX or np.ptp(index[:, :, 0], axis=1).max() > _IN_PLANE_VOX:
        return None
    depth = index[:, 0, 0]
    distinct = _distinct(depth)
    steps = np.diff(distinct)
    off = float(np.abs(depth - np.round(depth)).max())
    if len(steps) and steps.min() < 1.5:
        fits = bool(len(set(_nearest(distinct).tolist())) == len(distinct))
    elif spacing_mm:
        fits = abs(spacing_mm / scan.voxel_size[0] - 1) < 0.25
    else:
        fits = off < _EXACT_VOX * 2.5
    if not fits:
        return None
    places = _nearest(depth)
    lowest = min(0, int(places.min()))
    affine = scan.affine_vox_to_ras.copy()
    affine[:3, 3] += lowest * affine[:3, 0]
    grid = Grid((int(places.max()) - lowest + 1, *shape), affine)
    notes: tuple[str, ...] = ()
    if off > _EXACT_VOX:
        notes = (f"Its slices lie up to {off:.2f} slices off the scan's; each goes to the nearest.",)
    return SliceMap(tuple(int(p) - lowest for p in places), grid, notes)


def _own_lattice(frames: Sequence[Frame], spacing_mm: float | None) -> SliceMap:
    """Slices of frames on a grid of their own, whose step is the smallest distance of two frames or the file's."""
    along = distances_mm(frames)
    distinct = _distinct(along, 1e-3)
    smallest = float(np.diff(distinct).min()) if len(distinct) > 1 else None
    step = spacing_mm or smallest or frames[0].slice_thickness_mm
    if step is None or not step > 0:
        raise ReadError("a single slice of unknown thickness cannot be put onto a scan with other slices")
    if smallest is not None and abs(smallest / step - round(smallest / step)) > 0.1:
        step = smallest
    index = (along - distinct[0]) / step
    places = np.round(index).astype(np.int64)
    if np.abs(index - places).max() > 0.1:
        raise ReadError(f"its slices are unevenly spaced (usual step {step:.2f} mm) and are not those of the scan")
    first, last = int(along.argmin()), int(along.argmax())
    if first == last or places.max() == 0:
        affine = slice_affine(frames[first], step)
    else:
        affine = stack_affine(frames[first], frames[last], int(places.max()))
    note = "It lies on a grid of its own; each voxel of the scan takes the label of the nearest voxel."
    grid = Grid((int(places.max()) + 1, frames[0].header.rows, frames[0].header.columns), affine)
    return SliceMap(tuple(int(p) for p in places), grid, (note,))


def _distinct(values: FloatArray, tolerance: float = _EXACT_VOX) -> FloatArray:
    """Sorted values without those that differ from another by less than the tolerance."""
    ordered = np.sort(values)
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) >= tolerance])])


def _nearest(coordinate: FloatArray) -> NDArray[np.int64]:
    """The voxel that contains a continuous index."""
    return np.asarray(np.ceil(np.clip(coordinate, -(2.0**40), 2.0**40) - 0.5 - _TIE_VOX).astype(np.int64))


def same_voxels(source: Grid, target: Grid) -> bool:
    """True if every voxel of the target that lies in the source is one of its voxels, axes turned or not."""
    linear, offset = _between(source, target)
    turned = np.abs(np.abs(linear).max(axis=0) - 1).max() * max(target.shape) < _EXACT_VOX
    shifted = np.abs(offset - np.round(offset)).max() < _EXACT_VOX
    return bool(_axes(linear, target.shape) is not None and turned and shifted)


def paste(mask: Mask, source: Grid, target: Grid) -> Mask:
    """Transfer a mask from one grid to another: each target voxel takes the source voxel in which its centre lies.

    Args:
        mask: The mask in ``source``.
        source: The mask's grid.
        target: The target grid. If the spacing of either is unknown, voxels are matched by index.

    Returns:
        The mask in ``target``, tight.
    """
    linear, offset = _between(source, target)
    crop, begin = mask.array, np.asarray(mask.start, np.int64)
    low, high = _target_window(crop.shape, mask.start, linear, offset, target.shape)
    if (high <= low).any():
        return Mask.empty()
    axes = _axes(linear, target.shape)
    if axes is None:
        return Mask(low, _oblique(crop, begin, linear, offset, low, high)).tight()
    lines = []
    for a in range(3):
        p = axes[a]
        lines.append(_nearest(linear[a, p] * np.arange(low[p], high[p]) + offset[a]) - begin[a])
    valid = [(line >= 0) & (line < n) for line, n in zip(lines, crop.shape, strict=True)]
    picked = crop[np.ix_(*(np.where(v, line, 0) for v, line in zip(valid, lines, strict=True)))]
    picked &= valid[0][:, None, None] & valid[1][:, None] & valid[2]
    return Mask(low, picked.transpose([axes.index(p) for p in range(3)])).tight()


def _between(source: Grid, target: Grid) -> tuple[FloatArray, FloatArray]:
    """Linear part and offset of the map from indices of the target to indices of the source."""
    if not (source.spacing_known and target.spacing_known):
        return np.eye(3), np.zeros(3)
    both = np.linalg.solve(source.affine_vox_to_ras, target.affine_vox_to_ras)
    return np.asarray(both[:3, :3], np.float64), np.asarray(both[:3, 3], np.float64)


def _axes(linear: FloatArray, shape: Sequence[int]) -> list[int] | None:
    """For each source axis the only target axis along it; ``None`` if the grids are oblique to each other."""
    axes = [int(a) for a in np.abs(linear).argmax(axis=1)]
    rest = np.abs(linear) * np.asarray(shape)
    rest[range(3), axes] = 0
    return axes if sorted(axes) == [0, 1, 2] and rest.sum(axis=1).max() < _EXACT_VOX else None


def _target_window(
    shape: Sequence[int], start: Sequence[int], linear: FloatArray, offset: FloatArray, target_shape: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Half-open range of target indices that a crop can reach."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * shape + start - 0.5
    reached = np.linalg.solve(linear, (corners - offset).T).T
    low = np.clip(np.floor(reached.min(axis=0)), 0, target_shape).astype(np.int64)
    high = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, target_shape).astype(np.int64)
    return low, high


def _oblique(
    crop: BoolArray,
    begin: NDArray[np.int64],
    linear: FloatArray,
    offset: FloatArray,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> BoolArray:
    """Voxel by voxel, one target slice at a time."""
    result = np.zeros(tuple(int(n) for n in high - low), np.bool_)
    h, w = np.meshgrid(np.arange(low[1], high[1]), np.arange(low[2], high[2]), indexing="ij")
    for i, d in enumerate(range(int(low[0]), int(high[0]))):
        index = np.stack([np.full(h.shape, d), h, w], axis=-1) @ linear.T + offset
        voxel = _nearest(index) - begin
        inside = ((voxel >= 0) & (voxel < crop.shape)).all(axis=-1)
        result[i][inside] = crop[tuple(voxel[inside].T)]
    return result

"""Objects of a training window as crops, and their warping: each object costs what its own voxels cost.

A window may hold a hundred objects, each of which fills a small part of it. So an object is its crop, from the cut
of the window to the target of the loss, and only the output voxels whose source may lie in the crop are interpolated.
These are found by blocks: for each block of output voxels the smallest and largest source coordinate is known.

The interpolation is that of ``grid_sample`` (``bilinear``, zeros outside) in float64, as for the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d, max_pool3d

_BLOCK = 8  # output voxels per axis
_ROUNDING = 1e-2  # voxels that the bounds of blocks, in float32, may be off
_POOL = {2: max_pool2d, 3: max_pool3d}


@dataclass(frozen=True, eq=False)
class Crop:
    """The part of a window that holds one object.

    Attributes:
        start: Voxel index of its first voxel in the window, one per spatial axis.
        values: ``(*spatial)`` uint8, 255 where the object fills the voxel.
    """

    start: tuple[int, ...]
    values: Tensor

    @property
    def window(self) -> tuple[slice, ...]:
        """The slices of the window's axes that it covers."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.values.shape, strict=True))

    def flipped(self, axis: int, length: int) -> Crop:
        """Its mirror image in a window of ``length`` voxels along ``axis`` (negative, from the last)."""
        start = list(self.start)
        start[axis] = length - start[axis] - self.values.shape[axis]
        return Crop(tuple(start), self.values.flip(axis))


def dense(crops: Sequence[Crop], shape: Sequence[int]) -> Tensor:
    """Crops as ``(N, *shape)`` uint8."""
    out = torch.zeros((len(crops), *shape), dtype=torch.uint8)
    for plane, crop in zip(out, crops, strict=True):
        plane[crop.window] = crop.values
    return out


def sampling_grid(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """Source coordinates in the form that ``grid_sample`` takes.

    Args:
        grid: ``(>= S, *out)``: source coordinate of each output voxel along each axis, in voxels from the centre of the
            source window, as MONAI has it.
        shape: Shape of the source window.

    Returns:
        ``(*out, S)`` float64, last axis first; -1 and 1 are the source window's outer edges.
    """
    dims = len(shape)
    turned = grid[:dims].flip(0).movedim(0, -1).double()
    return turned * torch.tensor([2.0 / max(2, n) for n in reversed(shape)], dtype=torch.float64)


def warp_image(image: Tensor, grid: Tensor) -> Tensor:
    """An image ``(C, *shape)`` interpolated at a :func:`sampling_grid`, float32; zeros outside."""
    return grid_sample(image.double()[None], grid[None], padding_mode="zeros", align_corners=False)[0].float()


def warp_crops(crops: Sequence[Crop], grid: Tensor, shape: Sequence[int]) -> list[Crop]:
    """Crops of a window of ``shape`` interpolated at a :func:`sampling_grid`; those that are not met become empty."""
    if not crops:
        return []
    size, empty = [float(n) for n in reversed(shape)], (0,) * len(shape)
    starts, shapes = [crop.start for crop in crops], [crop.values.shape for crop in crops]
    warped = []
    places = _placed(starts, shapes, size)
    for crop, place, window in zip(crops, places, _reached(grid, starts, shapes, size), strict=True):
        if window is None:
            warped.append(Crop(empty, torch.zeros(empty, dtype=torch.uint8)))
        else:
            places = torch.addcmul(place[1], grid[window], place[0])[None]
            values = grid_sample(crop.values.double()[None, None], places, padding_mode="zeros", align_corners=False)
            warped.append(Crop(tuple(s.start for s in window), values[0, 0].round_().to(torch.uint8)))
    return warped


def _placed(starts: Sequence[Sequence[int]], shapes: Sequence[Sequence[int]], size: Sequence[float]) -> Tensor:
    """``(N, 2, S)`` float64: scale and offset from the coordinates of a window of ``size`` to those of its parts.

    All coordinates are those of ``grid_sample``, last axis first: -1 and 1 are the outer edges.
    """
    start, count = (torch.tensor(values, dtype=torch.float64).flip(1) for values in (starts, shapes))
    whole = torch.tensor(size, dtype=torch.float64)
    return torch.stack([whole / count, (whole - 2 * start) / count - 1], dim=1)


def _reached(
    grid: Tensor, starts: Sequence[Sequence[int]], shapes: Sequence[Sequence[int]], size: Sequence[float]
) -> list[tuple[slice, ...] | None]:
    """For each crop the window of output voxels whose source may lie in it; ``None`` if there are none."""
    out, dims = grid.shape[:-1], grid.shape[-1]
    planes, pool = grid.movedim(-1, 0).float(), _POOL[dims]
    highest, lowest = (pool(p[None], _BLOCK, ceil_mode=True)[0] for p in (planes, -planes))
    place = _placed(starts, shapes, size)
    # A voxel's value depends on a crop if its coordinate is less than a voxel outside of the crop's outer centres.
    reach = 1 + (1 + _ROUNDING) / torch.tensor(shapes, dtype=torch.float64).flip(1)
    low, high = ((side * reach - place[:, 1]) / place[:, 0] for side in (-1, 1))
    view = (len(starts), dims, *(1,) * dims)
    meets = ((highest >= low.float().view(view)) & (-lowest <= high.float().view(view))).all(dim=1)
    spans = []
    for axis in range(dims):
        along = meets.any(dim=tuple(a + 1 for a in range(dims) if a != axis)).int()
        spans.append((along.argmax(1).tolist(), (along.shape[1] - along.flip(1).argmax(1)).tolist(), out[axis]))
    found = [there and 0 not in shape for there, shape in zip(meets.flatten(1).any(1).tolist(), shapes, strict=True)]
    return [
        tuple(slice(a[i] * _BLOCK, min(b[i] * _BLOCK, n)) for a, b, n in spans) if there else None
        for i, there in enumerate(found)
    ]

"""Mask probabilities, given on a box's own M x ... x M grid, painted into the voxels of the image.

Continuous convention: mask cell ``j`` covers the ``j``-th of M equal shares of the box, and its value belongs to the
share's centre; voxel ``i`` covers ``[i, i + 1)`` and is asked at its centre ``i + 0.5``. Between the centres of cells
the value is linear, between the border cells' centres and the box's faces it is constant, and it is 0 for voxels
whose centre lies outside the box. Linear interpolation is a product over the axes: one small matrix for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mask_windows(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """The voxels that boxes touch, clipped to the image.

    Args:
        boxes: ``(N, 2S)`` voxel coordinates, minima then maxima.
        shape: Voxels of the image along each of the S axes.

    Returns:
        ``(N, 2S)`` int64, half-open: first voxel, then last voxel + 1. Empty (equal) along an axis for a box
        outside the image.
    """
    dims = boxes.shape[1] // 2
    if len(shape) != dims:
        raise ValueError(f"shape must have {dims} extents for boxes of width {2 * dims}, got {tuple(shape)}")
    limit = torch.tensor(list(shape), device=boxes.device, dtype=torch.float64)
    low = torch.minimum(boxes[:, :dims].double().floor().clamp(min=0), limit)
    high = torch.minimum(boxes[:, dims:].double().ceil().clamp(min=0), limit)
    return torch.cat([low, torch.maximum(low, high)], 1).long()


def paste_one(probability: Tensor, box: Tensor, window: Sequence[int]) -> Tensor:
    """Crop ``window`` (voxels) of one instance: ``probability`` ``(M, ..., M)``, ``box`` ``(2S,)``, float32 or 64."""
    dims = probability.ndim
    crop = probability
    for axis in range(dims):
        matrix = paste_matrix(box[axis], box[dims + axis], window[axis], window[dims + axis], probability.shape[axis])
        crop = torch.tensordot(crop, matrix, dims=([0], [1]))  # the finished axis moves to the end
    return crop


def paste_matrix(minimum: Tensor, maximum: Tensor, begin: int, end: int, cells: int) -> Tensor:
    """``(end - begin, cells)``: weight of each mask cell in each voxel of ``begin..end`` along one axis."""
    centre = torch.arange(begin, end, device=minimum.device, dtype=minimum.dtype) + 0.5
    inside = (centre >= minimum) & (centre < maximum)
    length = torch.where(maximum > minimum, maximum - minimum, 1.0)
    position = ((centre - minimum) / length * cells - 0.5).clamp(0, cells - 1)[:, None]
    cell = torch.arange(cells, device=minimum.device, dtype=minimum.dtype)
    return (1 - (position - cell).abs()).clamp(min=0) * inside[:, None]

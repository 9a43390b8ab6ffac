"""Pastes mask probabilities, given on a box's own M x ... x M grid, into the voxels of the image.

Continuous convention: mask cell ``j`` covers the ``j``-th of M equal shares of the box, and its value belongs to the
share's centre; voxel ``i`` covers ``[i, i + 1)`` and is sampled at its centre ``i + 0.5``. Between the centres of cells
the value is linear, between the border cells' centres and the box's faces it is constant, and it is 0 for voxels
whose centre lies outside the box. Linear interpolation is a product over the axes: one small matrix for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medmaskrcnn_kernels.plain import plain


def mask_windows(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """The voxels that boxes touch, clipped to the image.

    Args:
        boxes: ``(N, 2S)`` voxel coordinates, minima then maxima.
        shape: Voxels of the image along each of the S axes.

    Returns:
        ``(N, 2S)`` int64, half-open: first voxel, then last voxel + 1. Empty (equal) along an axis for a box
        outside the image.
    """
    boxes = plain(boxes)
    dims = boxes.shape[1] // 2
    if len(shape) != dims:
        raise ValueError(f"shape must have {dims} extents for boxes of width {2 * dims}, got {tuple(shape)}")
    limit = torch.tensor(list(shape), device=boxes.device, dtype=torch.float64)
    low = torch.minimum(boxes[:, :dims].double().floor().clamp(min=0), limit)
    high = torch.minimum(boxes[:, dims:].double().ceil().clamp(min=0), limit)
    return torch.cat([low, torch.maximum(low, high)], 1).long()


def paste_all(probabilities: Tensor, boxes: Tensor, windows: Tensor, threshold: float | None) -> list[Tensor]:
    """Crops of all windows; with a threshold, boolean crops, so that only one is held as floats at a time.

    Args:
        probabilities: ``(N, M, ..., M)``, float32 or float64.
        boxes: ``(N, 2S)`` voxels, of the same type.
        windows: ``(N, 2S)`` int64, half-open voxel indices.
        threshold: ``None`` for the probabilities themselves.

    Returns:
        N crops, each of its window's shape.
    """
    dims = boxes.shape[1] // 2
    matrices = [
        _matrices(boxes[:, axis::dims], windows[:, axis::dims], cells)
        for axis, cells in enumerate(probabilities.shape[1:])
    ]
    extents = (windows[:, dims:] - windows[:, :dims]).tolist()
    crops = []
    for i, extent in enumerate(extents):
        crop = probabilities[i]
        for matrix, n in zip(matrices, extent, strict=True):
            crop = crop.movedim(0, -1) @ matrix[i, :n].T  # the finished axis moves to the end
        crops.append(crop if threshold is None else crop >= threshold)
    return crops


def _matrices(sides: Tensor, windows: Tensor, cells: int) -> Tensor:
    """``(N, voxels, cells)``: weight of each mask cell in each voxel along one axis, from each window's first voxel on.

    Args:
        sides: ``(N, 2)`` minimum and maximum of the boxes along it, voxels.
        windows: ``(N, 2)`` first voxel and last voxel + 1; the longest gives the number of rows.
        cells: M.
    """
    n_voxels = int((windows[:, 1] - windows[:, 0]).max()) if len(windows) else 0
    minimum, maximum = sides[:, :1], sides[:, 1:]
    centre = (windows[:, :1] + torch.arange(n_voxels, device=sides.device)).to(sides.dtype) + 0.5
    inside = (centre >= minimum) & (centre < maximum)
    length = torch.where(maximum > minimum, maximum - minimum, 1.0)
    position = ((centre - minimum) / length * cells - 0.5).clamp(0, cells - 1)[..., None]
    cell = torch.arange(cells, device=sides.device, dtype=sides.dtype)
    return (1 - (position - cell).abs()).clamp(min=0) * inside[..., None]

"""RoI pooling of Fast R-CNN (Girshick 2015, section 2.1), in 2D and 3D: the ablation that RoIAlign is compared with.

A box is rounded to whole cells, ``round(coordinate * scale)`` with both ends included and at least one cell long, and
cut into bins ``floor(p * bin) .. ceil((p + 1) * bin)``; each bin gives its largest value, an empty one gives 0. The
largest value of a bin is found axis by axis, for many boxes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from medmaskrcnn_kernels.checks import (
    check_batch_index,
    check_batch_values,
    check_box_values,
    check_boxes,
    check_features,
    check_output_size,
    per_axis,
)
from medmaskrcnn_kernels.plain import plain

_GATHERED = 1 << 24  # numbers gathered at once: 64 MB in float32


def roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float],
) -> Tensor:
    """Largest value in each bin of each box, rounded to whole cells.

    Args:
        features: ``(B, C, *spatial)``, 2 or 3 spatial axes.
        boxes: ``(N, 2S)`` in voxels of the image, minima then maxima.
        batch_index: ``(N,)`` integers, image of each box.
        output_size: Bins along each axis.
        spatial_scale: Cells per voxel, one number or one per axis.

    Returns:
        ``(N, C, *output_size)`` in the features' dtype, differentiable with respect to the features.

    Raises:
        ValueError: for a row that is not a box or names no image, or wrong shapes.
    """
    features, boxes, batch_index = plain(features), plain(boxes), plain(batch_index)
    dims = check_features(features)
    check_boxes(boxes, dims)
    check_box_values(boxes)
    check_batch_index(batch_index, boxes)
    check_batch_values(batch_index, features.shape[0])
    bins = check_output_size(output_size, dims)
    scale = per_axis(spatial_scale, dims, name="spatial_scale")
    edges = [
        _edges(boxes[:, a].double() * scale[a], boxes[:, dims + a].double() * scale[a], bins[a], features.shape[2 + a])
        for a in range(dims)
    ]
    per_box = features.shape[1] * bins[0] * prod(features.shape[3:]) * 2
    chunk = max(1, _GATHERED // max(1, per_box))
    parts = [
        _pool(
            features,
            batch_index[i : i + chunk].long(),
            [(low[i : i + chunk], high[i : i + chunk]) for low, high in edges],
        )
        for i in range(0, len(boxes), chunk)
    ]
    return torch.cat(parts) if parts else features.new_zeros(0, features.shape[1], *bins)


def _pool(features: Tensor, image: Tensor, edges: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Bins ``(n, C, *bins)`` of n boxes, whose first and last cell + 1 of each bin are ``(n, bins)`` for each axis."""
    values, source = features, image
    for axis, (low, high) in enumerate(edges, start=2):
        values = _largest(values.movedim(axis, 1), source, low, high).movedim(1, axis)
        source = torch.arange(len(image), device=image.device)  # from the second axis on, each box has its own row
    empty = torch.zeros(values.shape[:1] + values.shape[2:], dtype=torch.bool, device=values.device)
    for axis, (low, high) in enumerate(edges, start=1):
        empty |= (high <= low).view(len(low), *(1,) * (axis - 1), -1, *(1,) * (empty.ndim - 1 - axis))
    return values.masked_fill(empty[:, None], 0)


def _largest(values: Tensor, source: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Rows ``(B, size, ...)`` to the largest of the rows ``low .. high - 1`` of each bin, ``(n, bins, ...)``."""
    size, longest = values.shape[1], max(1, int((high - low).max()))
    steps = torch.arange(longest, device=low.device)
    cells = torch.minimum(low[..., None] + steps, high[..., None] - 1).clamp(0, size - 1)  # (n, bins, longest)
    flat = (source.view(-1, 1, 1) * size + cells).flatten()
    rows = values.reshape(-1, *values.shape[2:]).index_select(0, flat).view(*cells.shape, *values.shape[2:])
    return rows.max(dim=2).values


def bin_edges(low: float, high: float, bins: int, size: int) -> list[tuple[int, int]]:
    """Half-open cell range of each bin along one axis, clipped to the map."""
    ends = torch.tensor([[low], [high]], dtype=torch.float64)
    begin, end = _edges(ends[0], ends[1], bins, size)
    return list(zip(begin[0].tolist(), end[0].tolist(), strict=True))


def _edges(low: Tensor, high: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """First cell, and last cell + 1, of each bin of N boxes along one axis: two ``(N, bins)`` int64."""
    first, last = _round_half_away(low), _round_half_away(high)
    length, number = (last - first + 1).clamp(min=1)[:, None], torch.arange(bins, device=low.device)
    begin = (number * length // bins + first[:, None]).clamp(0, size)
    end = (-(-(number + 1) * length // bins) + first[:, None]).clamp(0, size)
    return begin, torch.maximum(begin, end)


def _round_half_away(values: Tensor) -> Tensor:
    """C's ``round``: halves round away from zero, whereas torch rounds them to even."""
    return ((values.abs() + 0.5).floor() * values.sign()).long()

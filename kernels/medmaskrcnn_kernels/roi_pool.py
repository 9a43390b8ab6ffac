"""RoI pooling of Fast R-CNN (Girshick 2015, section 2.1), in 2D and 3D: the ablation that RoIAlign is measured against.

A box is rounded to whole cells, ``round(coordinate * scale)`` with both ends included and at least one cell long, and
cut into bins ``floor(p * bin) .. ceil((p + 1) * bin)``; each bin gives its largest value, an empty one gives 0. Plain
loops over boxes and bins: right, not fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

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
    dims = check_features(features)
    check_boxes(boxes, dims)
    check_box_values(boxes)
    check_batch_index(batch_index, boxes)
    check_batch_values(batch_index, features.shape[0])
    bins = check_output_size(output_size, dims)
    scale = per_axis(spatial_scale, dims, name="spatial_scale")
    pooled = [
        _pool_box(features[int(image)], box.tolist(), bins, scale)
        for box, image in zip(boxes, batch_index, strict=True)
    ]
    return torch.stack(pooled) if pooled else features.new_zeros(0, features.shape[1], *bins)


def _pool_box(feature: Tensor, box: list[float], bins: tuple[int, ...], scale: tuple[float, ...]) -> Tensor:
    dims = len(bins)
    edges = [bin_edges(box[a] * scale[a], box[dims + a] * scale[a], bins[a], feature.shape[1 + a]) for a in range(dims)]
    values = []
    for window in product(*edges):
        cells = feature[(slice(None), *(slice(low, high) for low, high in window))].flatten(1)
        values.append(cells.max(1).values if cells.shape[1] else feature.new_zeros(feature.shape[0]))
    return torch.stack(values, 1).view(-1, *bins)


def bin_edges(low: float, high: float, bins: int, size: int) -> list[tuple[int, int]]:
    """Half-open cell range of each bin along one axis, clipped to the map."""
    first, last = _round_half_away(low), _round_half_away(high)
    length = max(last - first + 1, 1)
    begin = [min(max(p * length // bins + first, 0), size) for p in range(bins)]
    end = [min(max(-(-(p + 1) * length // bins) + first, 0), size) for p in range(bins)]
    return [(b, max(b, e)) for b, e in zip(begin, end, strict=True)]


def _round_half_away(value: float) -> int:
    """C's ``round``: halves go away from zero, where Python's go to the even number."""
    return int(abs(value) + 0.5) * (1 if value >= 0 else -1)

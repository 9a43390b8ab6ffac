"""Pools regions of the maps to small grids of bins: RoIAlign (Mask R-CNN, section 3), or RoIPool for comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medmaskrcnn.settings import RoISettings
from medmaskrcnn_kernels import multiscale_roi_align, roi_pool
from medmaskrcnn_kernels.operators import least_areas
from medmaskrcnn_kernels.roi_align_portable import levels_of


def pool_rois(
    maps: Sequence[Tensor], boxes: Sequence[Tensor], *, strides: Sequence[tuple[int, ...]], bins: int, roi: RoISettings
) -> Tensor:
    """Pool each box from the pyramid level that suits its size (FPN, eq. 1).

    Args:
        maps: P2..P5, or one map; each ``(B, C, *map)``.
        boxes: Per image ``(n, 2S)`` in voxels of the input.
        strides: Stride of each map per axis, in voxels.
        bins: Bins per axis.
        roi: Pooling settings.

    Returns:
        ``(R, C, *(bins,) * S)``, image by image.
    """
    every = torch.cat(list(boxes))
    index = torch.cat([torch.full((len(b),), i, dtype=torch.int64, device=b.device) for i, b in enumerate(boxes)])
    if roi.pooler == "pool":
        return _pool(maps, every, index, strides, bins, roi)
    return multiscale_roi_align(
        list(maps),
        every,
        index,
        output_size=bins,
        strides=list(strides),
        sampling_ratio=roi.sampling_ratio,
        aligned=roi.aligned,
        canonical_size=roi.canonical_size,
        canonical_level=roi.canonical_level,
    )


def _pool(
    maps: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    strides: Sequence[tuple[int, ...]],
    bins: int,
    roi: RoISettings,
) -> Tensor:
    finest = strides[0][-1].bit_length() - 1
    areas = least_areas(
        range(finest, finest + len(maps)), canonical_size=roi.canonical_size, canonical_level=roi.canonical_level
    )
    level = levels_of(boxes, areas)
    order = [torch.nonzero(level == number).flatten() for number in range(len(maps))]
    parts = [
        roi_pool(m, boxes[rows], index[rows], output_size=bins, spatial_scale=[1.0 / s for s in stride])
        for m, rows, stride in zip(maps, order, strides, strict=True)
    ]
    return torch.cat(parts)[torch.cat(order).argsort()]

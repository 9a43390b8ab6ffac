"""Anchors: the reference boxes from which the RPN proposes (Faster R-CNN, section 3.1.1).

One scale per level (FPN, section 4.1) or a few, or all on a single map, and a few height:width ratios. MONAI's
generator rounds every anchor to whole voxels and fixes the centre; here both are settings, since torchvision's weights
need one choice and small lesions the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medmaskrcnn.settings import AnchorSettings


def base_anchors(size: Sequence[float], ratios: Sequence[float], *, rounded: bool) -> Tensor:
    """Anchors of one level around the origin.

    Args:
        size: Edge length per spatial axis in voxels.
        ratios: Height over width of the last two axes; the product of the two edges stays that of ``size``.
        rounded: Round half edges to whole voxels (half to even).

    Returns:
        ``(A, 2S)`` float32, minima then maxima, in voxels.
    """
    root = torch.sqrt(torch.tensor(list(ratios), dtype=torch.float32))
    edges = torch.tensor(list(size), dtype=torch.float32).repeat(len(root), 1)
    edges[:, -2] = edges[:, -2] * root
    edges[:, -1] = edges[:, -1] * (1.0 / root)
    half = edges / 2
    if rounded:
        half = half.round()
    return torch.cat([-half, half], dim=1)


def level_strides(
    image: Sequence[int], maps: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], settings: AnchorSettings
) -> list[tuple[int, ...]]:
    """Distance between neighbouring anchors per level and axis, in voxels.

    These are the network's strides, unless the settings select torchvision's rule, which divides the image size by
    the map size, so that P6 deviates slightly from its true stride if P5 has an odd size.
    """
    if not settings.stride_from_size:
        return [tuple(s) for s in strides]
    return [tuple(n // m for n, m in zip(image, shape, strict=True)) for shape in maps]


@lru_cache(maxsize=4)
def grid_anchors(
    settings: AnchorSettings,
    *,
    image: tuple[int, ...],
    maps: tuple[tuple[int, ...], ...],
    strides: tuple[tuple[int, ...], ...],
    device: torch.device,
) -> tuple[Tensor, ...]:
    """All anchors of an image, level by level; cached for images of the same size, so do not modify them in place.

    Args:
        settings: Sizes, ratios, offset.
        image: Spatial shape of the padded input tensor.
        maps: Spatial shape of each pyramid level.
        strides: Stride of each level per spatial axis, in voxels.
        device: Device of the anchors.

    Returns:
        For each level ``(cells * A, 2S)`` float32 boxes in voxels of the input; cells in row-major order, the
        anchors of one cell adjacent, as the RPN head orders its outputs.
    """
    anchors = []
    per_level = len(settings.sizes) // len(maps)
    sizes = [settings.sizes[level * per_level : (level + 1) * per_level] for level in range(len(maps))]
    for of_level, shape, stride in zip(sizes, maps, level_strides(image, maps, strides, settings), strict=True):
        centres = [
            (torch.arange(n, dtype=torch.float32, device=device) + settings.offset) * s
            for n, s in zip(shape, stride, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).reshape(-1, 1, len(shape))
        base = torch.cat([base_anchors(size, settings.ratios, rounded=settings.rounded) for size in of_level])
        anchors.append((grid.repeat(1, 1, 2) + base.to(device)).reshape(-1, 2 * len(shape)))
    return tuple(anchors)

"""What ignored objects set aside in training: anchors and proposals that are neither positives nor negatives.

An ignored object (COCO's ``iscrowd``, voxels that nobody labelled) is neither found nor missed. A box that is matched
to no real object is set aside if the matcher takes it for the ignored object, since it would be a positive or nearly
one if that object counted, or if at least half of the box itself lies in ignored voxels, as COCO compares detections
with crowds: with the intersection over the box's own volume. Boxes matched to a real object remain its positives.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medmaskrcnn.models.box_coder import box_intersection
from medmaskrcnn.models.matching import BACKGROUND, IGNORED

_INSIDE = 0.5  # share of a box's own volume; COCO's lowest threshold, also mmdetection's usual ``ignore_iof_thr``


def set_ignored_aside(
    matches: Tensor,
    boxes: Tensor,
    ignored_boxes: Tensor,
    ignored_voxels: Tensor | None,
    match: Callable[[Tensor], Tensor],
) -> Tensor:
    """Turn background that lies in ignored objects into :data:`IGNORED`.

    Args:
        matches: ``(M,)`` matches with the real objects.
        boxes: ``(M, 2S)`` anchors or proposals in voxels.
        ignored_boxes: ``(I, 2S)`` in voxels.
        ignored_voxels: ``(*spatial)`` bool; ``None`` if there are no masks: the boxes then stand for the voxels.
        match: The matcher that made ``matches``, as a function of the objects' boxes.

    Returns:
        ``(M,)`` matches.
    """
    if not len(ignored_boxes):
        return matches
    if ignored_voxels is None:
        inside = share_in_boxes(boxes, ignored_boxes)
    else:
        inside = share_in_voxels(boxes, ignored_voxels)
    aside = (match(ignored_boxes) != BACKGROUND) | (inside >= _INSIDE)
    return torch.where((matches == BACKGROUND) & aside, IGNORED, matches)


def share_in_boxes(boxes: Tensor, regions: Tensor) -> Tensor:
    """``(M,)`` largest share of the volume of each box ``(M, 2S)`` that lies in one of the regions ``(I, 2S)``."""
    dims = boxes.shape[1] // 2
    volume = (boxes[:, dims:] - boxes[:, :dims]).prod(dim=1)
    return box_intersection(regions, boxes).amax(dim=0) / volume.clamp(min=torch.finfo(boxes.dtype).tiny)


def share_in_voxels(boxes: Tensor, voxels: Tensor) -> Tensor:
    """Share of the voxels of each box that are set.

    Args:
        boxes: ``(M, 2S)``; rounded to whole voxels, at least one, and cut off at the image's edges.
        voxels: ``(*spatial)`` bool.

    Returns:
        ``(M,)`` float32 in 0..1; 0 for boxes outside the image.
    """
    dims = voxels.ndim
    sums = torch.nn.functional.pad(voxels.int(), (1, 0) * dims)
    for axis in range(dims):
        sums = sums.cumsum(axis, dtype=torch.int32)  # summed-area table: any box takes 2^S readings
    limit = torch.tensor(voxels.shape, device=boxes.device)
    low = boxes[:, :dims].round().long()
    high = torch.maximum(boxes[:, dims:].round().long(), low + 1)
    corners = torch.stack([low, high], dim=1).clamp(min=0).minimum(limit)  # (M, 2, S)
    strides = torch.tensor(sums.stride(), device=boxes.device)
    total = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    for corner in range(1 << dims):
        ends = [(corner >> axis) & 1 for axis in range(dims)]
        index = sum(corners[:, end, axis] * strides[axis] for axis, end in enumerate(ends))
        total += (-1) ** (dims - sum(ends)) * sums.flatten()[index]
    volume = (corners[:, 1] - corners[:, 0]).prod(dim=1)
    return total / volume.clamp(min=1)

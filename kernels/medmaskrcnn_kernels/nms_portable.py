"""Non-maximum suppression in blocks: no Python loop over boxes, and never an N x N matrix.

Boxes are taken by falling score, a block at a time. Within a block the greedy rule "kept unless a kept, better box
overlaps it" is solved by iterating it to a fixed point: after ``k`` rounds at least the first ``k`` decisions are the
greedy ones, and in practice a few rounds settle all. The block's survivors then strike out everything they overlap
further down, so that what is struck out early costs nothing later.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
"""Boxes resolved together."""


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes ``(N, 2S)`` and ``(M, 2S)``: ``(N, M)``; NaN where both have no extent."""
    dims = one.shape[1] // 2
    overlap = one.new_ones(())
    for axis in range(dims):
        low = torch.maximum(one[:, None, axis], other[None, :, axis])
        high = torch.minimum(one[:, None, dims + axis], other[None, :, dims + axis])
        overlap = overlap * high.sub_(low).clamp_(min=0)
    return overlap / (box_size(one)[:, None] + box_size(other)[None] - overlap)


def box_size(boxes: Tensor) -> Tensor:
    """Area or volume of boxes ``(N, 2S)``: ``(N,)``."""
    dims = boxes.shape[1] // 2
    return (boxes[:, dims:] - boxes[:, :dims]).prod(1)


def nms_portable(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices ``(K,)`` int64 of the boxes that are kept, by falling score, equal scores by rising index."""
    order = scores.argsort(descending=True, stable=True)
    left = boxes.float()[order]
    kept = []
    while left.shape[0]:
        block, rest = left[:BLOCK], left[BLOCK:]
        chosen = greedy(pairwise_iou(block, block) > iou_threshold)
        kept.append(order[:BLOCK][chosen])
        alive = ~(pairwise_iou(block[chosen], rest) > iou_threshold).any(0)
        left, order = rest[alive], order[BLOCK:][alive]
    return torch.cat(kept) if kept else order


def greedy(overlaps: Tensor) -> Tensor:
    """Which of n boxes, best first, the greedy rule keeps: ``overlaps`` ``(n, n)`` bool, result ``(n,)`` bool."""
    strikes = overlaps.triu(1)
    keep = torch.ones(overlaps.shape[0], dtype=torch.bool, device=overlaps.device)
    while True:
        following = ~(strikes & keep[:, None]).any(0)
        if torch.equal(following, keep):
            return keep
        keep = following


def batched_nms_portable(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """The same, class by class: boxes of different ``idxs`` ``(N,)`` never strike one another out."""
    kept = []
    for label in idxs.unique():
        own = (idxs == label).nonzero()[:, 0]
        kept.append(own[nms_portable(boxes[own], scores[own], iou_threshold)])
    found = torch.cat(kept).sort().values if kept else idxs.new_zeros(0, dtype=torch.int64)
    return found[scores[found].argsort(descending=True, stable=True)]

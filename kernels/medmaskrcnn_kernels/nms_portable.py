"""Non-maximum suppression in blocks: no Python loop over boxes, and never an N x N matrix.

Boxes are processed by descending score, one block at a time. Within a block the greedy rule "kept unless a kept, better
box overlaps it" is solved by iterating it to a fixed point: after ``k`` rounds at least the first ``k`` decisions are
the greedy ones, and in practice a few rounds suffice. The block's survivors then suppress everything they overlap
further down, so that boxes suppressed early cost nothing later.

Areas, intersections and ratios are float32 in torchvision's order of operations, so that ties at the threshold fall
the same way. The work is arranged as few passes over small float tiles; boolean reductions are several times slower.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 256
"""Boxes resolved together."""
TILE_ROWS = 64
"""Survivors compared at once with everything further down; a tile of 64 x 6,000 still fits a CPU's cache."""
SMALLEST = 2.0**-149
"""The smallest positive float32: replaces an empty union, so that 0 / 0 is 0 and no box suppresses another."""


def nms_portable(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices ``(K,)`` int64 of the boxes ``(N, 2S)`` that are kept, by descending score, ties by ascending index."""
    threshold = largest_float32(iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    left = boxes.float()[order]
    size = box_sizes(left)
    kept = [order[:0]]
    while left.shape[0]:
        block, rest = left[:BLOCK], left[BLOCK:]
        overlap = pairwise_iou(block, size[:BLOCK], block.T.contiguous(), size[:BLOCK])
        chosen = greedy(overlap > threshold)
        kept.append(order[:BLOCK][chosen])
        best = largest_iou(block[chosen], size[:BLOCK][chosen], rest, size[BLOCK:])
        alive = (best <= threshold).nonzero()[:, 0]
        left, size, order = rest[alive], size[BLOCK:][alive], order[BLOCK:][alive]
    return torch.cat(kept)


def batched_nms_portable(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """The same indices, by class: boxes ``(N, 2S)`` of different ``idxs`` ``(N,)`` never suppress one another."""
    kept = [idxs.new_zeros(0, dtype=torch.int64)]
    for label in torch.unique(idxs):
        own = (idxs == label).nonzero()[:, 0]
        kept.append(own[nms_portable(boxes[own], scores[own], iou_threshold)])
    found = torch.cat(kept).sort().values
    return found[scores[found].argsort(descending=True, stable=True)]


def greedy(overlaps: Tensor) -> Tensor:
    """Which of n boxes, best first, the greedy rule keeps: ``overlaps`` ``(n, n)`` bool, result ``(n,)`` bool."""
    strikes = overlaps.float().triu_(1)
    keep = strikes.new_ones(strikes.shape[0])
    while True:
        following = (keep @ strikes == 0).float()
        if torch.equal(following, keep):
            return keep.bool()
        keep = following


def largest_iou(one: Tensor, one_size: Tensor, other: Tensor, other_size: Tensor) -> Tensor:
    """For each box of ``other`` ``(M, 2S)`` its largest IoU with a box of ``one`` ``(N, 2S)``: ``(M,)``."""
    columns = other.T.contiguous()
    best = other_size.new_zeros(other_size.shape)
    for begin in range(0, one.shape[0], TILE_ROWS):
        rows = slice(begin, begin + TILE_ROWS)
        best = torch.maximum(best, pairwise_iou(one[rows], one_size[rows], columns, other_size).amax(0))
    return best


def pairwise_iou(one: Tensor, one_size: Tensor, columns: Tensor, column_size: Tensor) -> Tensor:
    """Intersection over union: boxes ``(N, 2S)`` against ``(2S, M)``, with their sizes, give ``(N, M)`` float32."""
    dims = one.shape[1] // 2
    overlap = one.new_ones(())
    for axis in range(dims):
        low = torch.maximum(one[:, axis, None], columns[axis])
        extent = torch.minimum(one[:, dims + axis, None], columns[dims + axis]).sub_(low).clamp_(min=0)
        overlap = extent if axis == 0 else overlap.mul_(extent)
    union = torch.add(one_size[:, None], column_size).sub_(overlap).clamp_(min=SMALLEST)
    return overlap.div_(union)


def box_sizes(boxes: Tensor) -> Tensor:
    """Area or volume ``(N,)`` of boxes ``(N, 2S)``, in voxels."""
    dims = boxes.shape[1] // 2
    extent = boxes[:, dims:] - boxes[:, :dims]
    size = extent[:, 0]
    for axis in range(1, dims):
        size = size * extent[:, axis]
    return size


def largest_float32(value: float) -> float:
    """The largest float32 not above ``value``: a float32 exceeds one if and only if it exceeds the other."""
    nearest = torch.tensor(value, dtype=torch.float32)
    if nearest.item() > value:
        nearest = torch.nextafter(nearest, torch.tensor(-math.inf))
    return nearest.item()

"""COCO's matching of predictions with references, for many cases, thresholds and size ranges at once.

Predictions of one case and class are matched in order of falling score; each takes the free reference with the highest
IoU if that reaches the threshold. Ignored references (crowds, objects outside a size range) are taken only if no other
can be, and a crowd stays free. Of equal IoUs the later reference is taken, as in pycocotools.

A prediction's match depends only on earlier predictions of its own case and class. So the k-th predictions of all cases
and classes are matched together, for all thresholds and ranges: the loop is as long as the largest case.

Letters: P pairs that may be matched, N predictions, M references, A size ranges, T thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray

IntArray = NDArray[np.int64]

BELOW_ONE = 1 - 1e-10
"""pycocotools' highest threshold: an IoU of 1 reaches it despite rounding."""


def assign(
    predicted: IntArray,
    reference: IntArray,
    iou: FloatArray,
    groups: IntArray,
    *,
    thresholds: FloatArray,
    set_aside: BoolArray,
    crowd: BoolArray,
) -> IntArray:
    """Match predictions with references; see the module docstring.

    Args:
        predicted: ``(P,)`` prediction of each pair, 0..N-1; within a group they are numbered by falling score.
        reference: ``(P,)`` reference of each pair, 0..M-1, of the same group.
        iou: ``(P,)`` IoU of each pair.
        groups: ``(N,)`` case and class of each prediction, as any number.
        thresholds: ``(T,)``, each in (0, 1].
        set_aside: ``(M, A)`` references that are taken only if no other can be.
        crowd: ``(M,)`` references that may be taken repeatedly.

    Returns:
        ``(N, A, T)``: the pair (0..P-1) by which each prediction was matched, -1 where it was not.
    """
    thresholds = np.minimum(thresholds, BELOW_ONE)
    matched = np.full((len(groups), set_aside.shape[1], len(thresholds)), -1, np.int64)
    order = np.flatnonzero(iou >= thresholds.min())
    order = order[np.lexsort((reference[order], iou[order], predicted[order]))]
    if not len(order):
        return matched
    first = np.flatnonzero(np.diff(predicted[order], prepend=-1))  # first pair of each prediction
    count = np.diff(first, append=len(order))
    turns = ranks(groups[predicted[order[first]]])
    taken = np.zeros((len(set_aside), *matched.shape[1:]), np.bool_)
    for members in _split(turns):
        sizes = count[members]
        starts = np.cumsum(sizes) - sizes
        place = np.arange(sizes.sum()) - np.repeat(starts, sizes)  # 0, 1, .. among a prediction's pairs
        pairs = order[np.repeat(first[members], sizes) + place]
        refs = reference[pairs]
        open_ = (iou[pairs, None, None] >= thresholds) & (~taken[refs] | crowd[refs, None, None])
        worth = (place + 1)[:, None] + len(order) * ~set_aside[refs]
        best = np.maximum.reduceat(np.where(open_, worth[:, :, None], 0), starts, axis=0)
        hit = np.nonzero(best)
        chosen = order[first[members][hit[0]] + (best[hit] - 1) % len(order)]
        matched[predicted[chosen], hit[1], hit[2]] = chosen
        taken[reference[chosen], hit[1], hit[2]] = True
    return matched


def ranks(groups: IntArray) -> IntArray:
    """Rank 0, 1, 2, .. within each group, in the given order; ``groups`` is ``(N,)`` of any numbers."""
    if not len(groups):
        return np.zeros(0, np.int64)
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    found = np.empty(len(groups), np.int64)
    found[order] = np.arange(len(groups)) - np.repeat(first, np.diff(first, append=len(groups)))
    return found


def _split(turns: IntArray) -> list[IntArray]:
    """Indices with turn 0, with turn 1, and so on."""
    order = np.argsort(turns, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(turns[order])) + 1)

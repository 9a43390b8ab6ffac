"""How far several looks at one scan agree: each object's mean score, and how much its outlines differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts

SAME_IOU = 0.3
"""Overlap of masks from which two looks saw the same object."""

_LEAST_SCORE = 0.1  # candidates below it are no objects in any look


@dataclass(frozen=True)
class SeenObject:
    """An object as the looks saw it.

    Attributes:
        label: Class index.
        score: Mean score over all looks, 0 where a look lacks it.
        overlap: Mean IoU of its masks with that of the look that saw it first; 1 if only one look saw it.
    """

    label: int
    score: float
    overlap: float

    @property
    def uncertainty(self) -> float:
        """0 to 1: high if it is unclear whether the object is there, or where it ends.

        The entropy of the mean score in bits, and one minus the overlap; either of them is enough.
        """
        p = min(max(self.score, 1e-6), 1 - 1e-6)
        entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        return float(1 - (1 - entropy) * self.overlap)


def agreement(seen: Sequence[Instances]) -> list[SeenObject]:
    """Match the objects of several looks at one scan.

    Args:
        seen: For each look all candidates, on one grid.

    Returns:
        Every object that at least one look saw.
    """
    own = [one.select(np.flatnonzero(one.scores >= _LEAST_SCORE)) for one in seen]
    free = [np.ones(len(one), bool) for one in own]
    found: list[SeenObject] = []
    for first, objects in enumerate(own):
        leading = objects.select(np.flatnonzero(free[first]))
        scores, overlaps = leading.scores.astype(float).copy(), np.zeros(len(leading))
        times = np.ones(len(leading), int)
        for other in range(first + 1, len(own)):
            for i, j, iou in _pairs(leading, own[other], free[other]):
                free[other][j] = False
                scores[i] += own[other].scores[j]
                overlaps[i] += iou
                times[i] += 1
        for label, score, overlap, count in zip(leading.labels, scores, overlaps, times, strict=True):
            mean = float(overlap) / (count - 1) if count > 1 else 1.0
            found.append(SeenObject(int(label), float(score) / len(own), mean))
    return found


def _pairs(first: Instances, second: Instances, free: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """Pairs of one class with enough overlap, the best first, each object once."""
    if not len(first) or not free.any():
        return []
    wanted = (first.labels[:, None] == second.labels) & free
    shared = shared_voxel_counts(first, second, wanted=wanted)
    union = voxel_counts(first)[:, None] + voxel_counts(second) - shared
    iou = np.where(wanted, shared / np.maximum(union, 1), 0.0)
    pairs, taken = [], (set(), set())  # type: ignore[var-annotated]
    for place in np.argsort(-iou, axis=None, kind="stable"):
        i, j = (int(n) for n in np.unravel_index(place, iou.shape))
        if iou[i, j] < SAME_IOU:
            break
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((i, j, float(iou[i, j])))
    return pairs

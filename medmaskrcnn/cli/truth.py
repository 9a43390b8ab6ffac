"""What was found against what is there: for the demo, whose phantom knows its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, tight_crop
from medmaskrcnn.structures.overlap import shared_voxels, voxel_counts

FOUND_IOU = 0.3
"""An object counts as found if an instance of its class overlaps it so far (intersection over union of the masks)."""


@dataclass(frozen=True)
class Match:
    """One object of the truth.

    Attributes:
        truth: Its index.
        found: Index of the instance that found it, or ``None`` if it was missed.
        iou: Overlap of the two, 0 if it was missed.
    """

    truth: int
    found: int | None
    iou: float


def truth_instances(
    labels: NDArray[np.integer],
    grid: Grid,
    objects: Sequence[tuple[int, str, int | None]],
    class_names: tuple[str, ...],
) -> Instances:
    """The objects of an instance label map as :class:`Instances`.

    Args:
        labels: ``(D, H, W)`` on ``grid``.
        grid: The grid.
        objects: Value in the map, class and, for a part of another object, the other's value; an object has the
            voxels of its parts too.
        class_names: Classes; objects of other classes are an error.

    Raises:
        ValueError: if an object's class is unknown.
    """
    masks, starts = [], []
    for value, _, _ in objects:
        members = [value, *(part for part, _, whole in objects if whole == value)]
        start, mask = tight_crop(np.isin(labels, members), (0, 0, 0))
        masks.append(mask)
        starts.append(start)
    boxes = [[*start, *np.add(start, mask.shape)] for start, mask in zip(starts, masks, strict=True)]
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([class_names.index(name) for _, name, _ in objects], np.int64),
        scores=np.ones(len(objects), np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 6),
        mask_starts=np.array(starts, np.int64).reshape(-1, 3),
        masks=tuple(masks),
    )


def match(truth: Instances, found: Instances) -> list[Match]:
    """For each object of the truth the instance that found it; each instance finds one object at most.

    Classes are compared by name; pairs are taken by falling overlap.
    """
    pairs = sorted(_overlaps(truth, found).items(), key=lambda pair: (-pair[1], pair[0]))
    of_truth: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for (t, f), iou in pairs:
        if iou >= FOUND_IOU and t not in of_truth and f not in taken:
            of_truth[t] = (f, iou)
            taken.add(f)
    return [Match(t, *of_truth.get(t, (None, 0.0))) for t in range(len(truth))]


def _overlaps(truth: Instances, found: Instances) -> Mapping[tuple[int, int], float]:
    """Intersection over union of every pair of one class that shares voxels."""
    size_t, size_f = voxel_counts(truth), voxel_counts(found)
    overlaps = {}
    for t in range(len(truth)):
        for f in range(len(found)):
            if truth.class_names[truth.labels[t]] != found.class_names[found.labels[f]]:
                continue
            shared = shared_voxels(truth, t, found, f)
            if shared:
                overlaps[t, f] = shared / float(size_t[t] + size_f[f] - shared)
    return overlaps

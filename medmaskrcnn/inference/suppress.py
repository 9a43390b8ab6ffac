"""Which of the objects found are left: not those that better ones of their class hold, of single organs only the best.

Suppression of boxes cannot see an object that is two neighbours taken for one, or a part of one: its box overlaps
little with each of the others. The voxels tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.settings import ModelFileSettings


def suppress_contained(
    found: Sequence[Detection], *, max_containment: float | None, shape: tuple[int, ...]
) -> list[Detection]:
    """The objects of which better ones of their class hold at most so much.

    Args:
        found: Objects in the turned scan or in one slice, in any order; one without voxels stays.
        max_containment: Share of an object's voxels, 0..1: an object is dropped if objects of a higher score
            that were kept hold more of it. ``None`` drops none.
        shape: ``(D, H, W)`` of the turned scan, or ``(1, H, W)`` of one of its slices, voxels.

    Returns:
        What is left, in the given order.
    """
    if max_containment is None:
        return list(found)
    held: dict[int, NDArray[np.bool_]] = {}
    kept = set()
    for i in sorted(range(len(found)), key=lambda i: -found[i].score):
        item = found[i]
        if item.label not in held:
            held[item.label] = np.zeros(shape, dtype=np.bool_)
        window = held[item.label][item.mask.window]
        if np.count_nonzero(window & item.mask.array) <= max_containment * item.mask.n_voxels:
            window |= item.mask.array
            kept.add(i)
    return [item for i, item in enumerate(found) if i in kept]


def of_classes(found: Sequence[Detection], labels: Collection[int], settings: ModelFileSettings) -> list[Detection]:
    """The objects of some classes; of a class of which a body has one, only the best candidate that has a voxel.

    Args:
        found: Objects, the most certain first.
        labels: Indices of the classes.
        settings: Name the classes of which a body has one.
    """
    single = {settings.model.class_names.index(name) for name in settings.inference.one_per_scan_classes}
    kept: list[Detection] = []
    seen: set[int] = set()
    for item in found:
        if item.label not in labels:
            continue
        if item.label not in single:
            kept.append(item)
        elif item.label not in seen and not item.mask.is_empty:
            kept.append(item)
            seen.add(item.label)
    return kept

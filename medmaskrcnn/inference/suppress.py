"""Mask-based suppression: removes objects contained in better ones of their class, and duplicates of single organs.

Box NMS misses a detection that spans two neighbouring objects or is a part of one, since its box has a low IoU with
each of the others. Their voxels show it. What is removed stays among the candidates, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.instances import Removal


def suppress_contained(
    found: Sequence[Detection], *, max_containment: float | None, shape: tuple[int, ...]
) -> list[Detection]:
    """Remove objects that are largely contained in higher-scoring objects of their class.

    Args:
        found: Objects in the turned scan or in one slice, in any order; objects without voxels are not removed.
        max_containment: An object is removed if more than this fraction of its voxels, 0..1, lies in remaining objects
            of its class with a higher score. ``None`` removes none.
        shape: ``(D, H, W)`` of the turned scan, or ``(1, H, W)`` of one of its slices, voxels.

    Returns:
        The objects in the given order; those removed are marked as contained.
    """
    if max_containment is None:
        return list(found)
    held: dict[int, NDArray[np.bool_]] = {}
    contained = set()
    for i in sorted(range(len(found)), key=lambda i: -found[i].score):
        item = found[i]
        if item.label not in held:
            held[item.label] = np.zeros(shape, dtype=np.bool_)
        window = held[item.label][item.mask.window]
        if np.count_nonzero(window & item.mask.array) <= max_containment * item.mask.n_voxels:
            window |= item.mask.array
        else:
            contained.add(i)
    return [replace(item, removed=Removal.CONTAINED) if i in contained else item for i, item in enumerate(found)]


def suppress_duplicates(found: Sequence[Detection], settings: ModelFileSettings) -> list[Detection]:
    """Remove all but the best object of each class that occurs once in a body (``one_per_scan_classes``).

    Args:
        found: Objects by descending score; those removed before and those without voxels are no duplicates.
        settings: The model's settings, which name the classes.

    Returns:
        The objects in the given order; those removed are marked as duplicates.
    """
    single = {settings.model.class_names.index(name) for name in settings.inference.one_per_scan_classes}
    remaining: list[Detection] = []
    seen: set[int] = set()
    for item in found:
        counts = item.label in single and item.removed == Removal.NONE and not item.mask.is_empty
        remaining.append(replace(item, removed=Removal.DUPLICATE) if counts and item.label in seen else item)
        if counts:
            seen.add(item.label)
    return remaining

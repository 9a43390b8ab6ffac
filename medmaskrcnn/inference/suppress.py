"""Mask-based suppression: drops objects contained in better ones of their class and duplicates of single organs.

Box NMS misses a detection that spans two neighbouring objects or is a part of one, since its box has a low IoU with
each of the others. Their voxels show it.
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
    """Drop objects that are largely contained in higher-scoring objects of their class.

    Args:
        found: Objects in the turned scan or in one slice, in any order; objects without voxels are kept.
        max_containment: An object is dropped if more than this fraction of its voxels, 0..1, lies in kept objects of
            its class with a higher score. ``None`` drops none.
        shape: ``(D, H, W)`` of the turned scan, or ``(1, H, W)`` of one of its slices, voxels.

    Returns:
        The remaining objects, in the given order.
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
    """Keep the objects of some classes; of ``one_per_scan_classes`` only the best candidate with a non-empty mask.

    Args:
        found: Objects by descending score.
        labels: Indices of the classes to keep.
        settings: The model's settings, which name the classes with at most one object per scan.
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

"""Objects whose voxels others of their class hold already are dropped: two neighbours seen as one, say, or a part.

Suppression of boxes cannot see them: their boxes' overlap with each single neighbour is small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.inference.detection import Detection


def suppress_contained(
    found: Sequence[Detection], *, max_containment: float, shape: tuple[int, ...]
) -> list[Detection]:
    """The objects of which better ones of their class hold at most so much.

    Args:
        found: Objects in the turned scan or in one slice, in any order; one without voxels stays.
        max_containment: Share of an object's voxels, 0..1: an object is dropped if objects of a higher score
            that were kept hold more of it.
        shape: ``(D, H, W)`` of the turned scan, or ``(1, H, W)`` of one of its slices, voxels.

    Returns:
        What is left, in the given order.
    """
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

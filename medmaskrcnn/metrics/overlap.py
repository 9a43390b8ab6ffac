"""How well two masks agree: Dice and intersection over union, on arrays and on the crops of instances.

With the voxel sets A and B: Dice = 2 |A and B| / (|A| + |B|), IoU = |A and B| / |A or B|. Counts are exact
integers and the division is done in float64, as pycocotools does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import BoolArray, Instances
from medmaskrcnn.structures.overlap import meeting_pairs, shared_voxels, voxel_counts


def dice(first: BoolArray, second: BoolArray) -> float:
    """Dice coefficient of two boolean masks of one shape, any number of axes; 1.0 if both are empty.

    Example:
        >>> dice(np.array([True, True, False]), np.array([True, False, False]))
        0.6666666666666666

    Raises:
        ValueError: if shapes differ or a mask is not boolean.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks must have one shape, got {first.shape} and {second.shape}")
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise ValueError(f"masks must be boolean, got {first.dtype} and {second.dtype}")
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def intersections(first: Instances, second: Instances) -> NDArray[np.int64]:
    """``(N, M)`` int64: voxels that mask ``i`` of ``first`` shares with mask ``j`` of ``second``.

    Raises:
        ValueError: if the two do not lie on grids of one shape.
    """
    shared = np.zeros((len(first), len(second)), np.int64)
    for i, j in meeting_pairs(first, second):
        shared[i, j] = shared_voxels(first, i, second, j)
    return shared


def mask_iou(first: Instances, second: Instances) -> FloatArray:
    """``(N, M)`` float64: intersection over union of every mask of ``first`` with every one of ``second``.

    A mask without voxels has IoU 0 with everything. No dense volume is built.

    Raises:
        ValueError: if the two do not lie on grids of one shape.
    """
    shared = intersections(first, second)
    union = voxel_counts(first)[:, None] + voxel_counts(second)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1))

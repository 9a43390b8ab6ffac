"""Overlap of masks or boxes: Dice and intersection over union, on arrays and on the crops of instances.

With the voxel sets A and B: Dice = 2 |A and B| / (|A| + |B|), IoU = |A and B| / |A or B|. Counts are exact
integers and the division is done in float64, as pycocotools does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray


def dice(first: BoolArray, second: BoolArray) -> float:
    """Dice coefficient of two boolean masks of any shape, the same for both; 1.0 if both are empty.

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


def box_intersections(first: NDArray[np.floating], second: NDArray[np.floating]) -> FloatArray:
    """``(N, M)`` float64: area or volume that boxes ``(N, 2S)`` and ``(M, 2S)`` share, in voxels.

    Raises:
        ValueError: if an argument is not an array of boxes, or the two differ in their number of axes.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or first.shape[1] % 2:
        raise ValueError(f"boxes must have shapes (N, 2S) and (M, 2S), got {first.shape} and {second.shape}")
    a, b, dims = first.astype(np.float64), second.astype(np.float64), first.shape[1] // 2
    low = np.maximum(a[:, None, :dims], b[:, :dims])
    high = np.minimum(a[:, None, dims:], b[:, dims:])
    return np.asarray(np.maximum(high - low, 0).prod(axis=2))


def box_volumes(boxes: NDArray[np.floating]) -> FloatArray:
    """``(N,)`` float64: area or volume of boxes ``(N, 2S)`` in voxels; 0 for boxes with maxima below minima."""
    dims = boxes.shape[1] // 2
    extents = boxes[:, dims:].astype(np.float64) - boxes[:, :dims].astype(np.float64)
    return np.asarray(np.maximum(extents, 0).prod(axis=1))


def over_union(
    shared: NDArray[Any], sizes: NDArray[Any], true_sizes: NDArray[Any], *, crowd: BoolArray | None = None
) -> FloatArray:
    """``(N, M)`` float64: IoU of each of N predictions with each of M references.

    Args:
        shared: ``(N, M)`` voxels in common.
        sizes: ``(N,)`` voxels of the predictions.
        true_sizes: ``(M,)`` voxels of the references.
        crowd: ``(M,)`` references that stand for many objects: there the intersection is divided by the prediction
            alone, as in COCO, since a union with a crowd says nothing about one of its members.
    """
    union = sizes[:, None] + true_sizes[None, :] - shared
    if crowd is not None and crowd.any():
        union[:, crowd] = sizes[:, None]
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)

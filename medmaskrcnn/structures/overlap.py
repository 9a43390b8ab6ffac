"""Voxels that instances share, counted on their crops: no dense volume is built."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.instances import Instances


def voxel_counts(instances: Instances) -> NDArray[np.int64]:
    """``(N,)`` int64: voxels of each mask."""
    return np.asarray([np.count_nonzero(mask) for mask in instances.masks], np.int64)


def shared_voxels(first: Instances, i: int, second: Instances, j: int) -> int:
    """Number of voxels that mask ``i`` of ``first`` and mask ``j`` of ``second`` have in common."""
    start_a, start_b = first.mask_starts[i], second.mask_starts[j]
    mask_a, mask_b = first.masks[i], second.masks[j]
    low = np.maximum(start_a, start_b)
    high = np.minimum(start_a + mask_a.shape, start_b + mask_b.shape)
    if (high <= low).any():
        return 0
    part_a = mask_a[tuple(slice(a, b) for a, b in zip(low - start_a, high - start_a, strict=True))]
    part_b = mask_b[tuple(slice(a, b) for a, b in zip(low - start_b, high - start_b, strict=True))]
    return int(np.count_nonzero(part_a & part_b))


def meeting_pairs(first: Instances, second: Instances) -> Iterator[tuple[int, int]]:
    """Pairs ``(i, j)`` whose crops meet, in order: the only ones that can share voxels.

    Raises:
        ValueError: if the two do not lie on grids of one shape.
    """
    if first.grid.shape != second.grid.shape:
        raise ValueError(f"instances must lie on one grid, got {first.grid.shape} and {second.grid.shape}")
    ends = second.mask_starts + np.asarray([m.shape for m in second.masks], np.int64).reshape(-1, 3)
    for i, mask in enumerate(first.masks):
        start = first.mask_starts[i]
        low, high = np.maximum(start, second.mask_starts), np.minimum(start + mask.shape, ends)
        for j in np.flatnonzero((high > low).all(axis=1)):
            yield i, int(j)

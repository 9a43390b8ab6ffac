"""Voxels that instances share, counted on their crops: no dense volume is built."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.instances import Instances

_PAIRS_AT_ONCE = 1_000_000


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
    for pair in _meeting(first, second).tolist():
        yield pair[0], pair[1]


def shared_voxel_counts(
    first: Instances, second: Instances, *, wanted: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """``(N, M)`` int64: voxels that mask ``i`` of ``first`` shares with mask ``j`` of ``second``.

    As :func:`shared_voxels` for every pair, with the windows of all pairs worked out at once.

    Args:
        first: N instances.
        second: M instances.
        wanted: ``(N, M)`` pairs to count; those of others are left 0. By default all.

    Raises:
        ValueError: if the two do not lie on grids of one shape.
    """
    shared = np.zeros((len(first), len(second)), np.int64)
    pairs = _meeting(first, second)
    if wanted is not None:
        pairs = pairs[wanted[pairs[:, 0], pairs[:, 1]]]
    start_a, start_b = first.mask_starts[pairs[:, 0]], second.mask_starts[pairs[:, 1]]
    shape_a, shape_b = first.mask_shapes[pairs[:, 0]], second.mask_shapes[pairs[:, 1]]
    low, high = np.maximum(start_a, start_b), np.minimum(start_a + shape_a, start_b + shape_b)
    windows = np.concatenate([low - start_a, high - start_a, low - start_b, high - start_b], axis=1)
    for (i, j), (d, h, w, d2, h2, w2, e, k, x, e2, k2, x2) in zip(pairs.tolist(), windows.tolist(), strict=True):
        part_a, part_b = first.masks[i][d:d2, h:h2, w:w2], second.masks[j][e:e2, k:k2, x:x2]
        shared[i, j] = np.count_nonzero(part_a & part_b)
    return shared


def _meeting(first: Instances, second: Instances) -> NDArray[np.int64]:
    """``(P, 2)`` pairs whose crops meet; worked out for so many at once that memory stays small."""
    if first.grid.shape != second.grid.shape:
        raise ValueError(f"instances must lie on one grid, got {first.grid.shape} and {second.grid.shape}")
    starts, others = first.mask_starts, second.mask_starts
    ends, other_ends = starts + first.mask_shapes, others + second.mask_shapes
    step = max(1, _PAIRS_AT_ONCE // max(1, len(second)))
    found = [np.zeros((0, 2), np.int64)]
    for a in range(0, len(first), step):
        low = np.maximum(starts[a : a + step, None], others)
        high = np.minimum(ends[a : a + step, None], other_ends)
        found.append(np.argwhere((high > low).all(axis=2)) + np.array([a, 0]))
    return np.concatenate(found)

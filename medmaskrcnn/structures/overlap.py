"""Counts the voxels that masks share, on their crops: no dense volume is built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask, corners

_PAIRS_AT_ONCE = 1_000_000


def voxel_counts(instances: Instances) -> NDArray[np.int64]:
    """``(N,)`` int64: voxels of each mask."""
    return np.asarray([mask.n_voxels for mask in instances.masks], np.int64)


def shared_voxel_counts(
    first: Instances, second: Instances, *, wanted: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """``(N, M)`` int64: voxels that mask ``i`` of ``first`` shares with mask ``j`` of ``second``.

    Args:
        first: N instances.
        second: M instances.
        wanted: ``(N, M)`` pairs to count; others are left 0. By default all.

    Raises:
        ValueError: if the shapes of their grids differ.
    """
    if first.grid.shape != second.grid.shape:
        raise ValueError(f"instances must lie on one grid, got {first.grid.shape} and {second.grid.shape}")
    shared = np.zeros((len(first), len(second)), np.int64)
    pairs = _meeting(first.masks, second.masks)
    if wanted is not None:
        pairs = pairs[wanted[pairs[:, 0], pairs[:, 1]]]
    shared[pairs[:, 0], pairs[:, 1]] = _shared(first.masks, second.masks, pairs)
    return shared


def overlapping_pairs(masks: Sequence[Mask]) -> list[tuple[int, int, int]]:
    """``(i, j, n)`` in order, i < j, of all pairs of masks that share voxels, and the number n of these."""
    pairs = _meeting(masks, masks)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    counts = _shared(masks, masks, pairs)
    return [(i, j, n) for (i, j), n in zip(pairs.tolist(), counts.tolist(), strict=True) if n]


def pack_layers(masks: Sequence[Mask]) -> list[list[int]]:
    """Pack masks greedily into few layers without overlap: each goes into the first layer where it fits.

    Returns:
        Indices of the masks of each layer, ascending; no layers if there are no masks.
    """
    clashes: dict[int, set[int]] = {i: set() for i in range(len(masks))}
    for i, j, _ in overlapping_pairs(masks):
        clashes[j].add(i)
    layers: list[list[int]] = []
    for i, before in clashes.items():
        layer = next((members for members in layers if before.isdisjoint(members)), None)
        if layer is None:
            layers.append([i])
        else:
            layer.append(i)
    return layers


def _shared(first: Sequence[Mask], second: Sequence[Mask], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(P,)`` number of voxels that the masks of each pair share; the windows of all pairs are computed at once."""
    (start_a, end_a), (start_b, end_b) = corners(first), corners(second)
    start_a, start_b = start_a[pairs[:, 0]], start_b[pairs[:, 1]]
    low = np.maximum(start_a, start_b)
    high = np.minimum(end_a[pairs[:, 0]], end_b[pairs[:, 1]])
    windows = np.concatenate([low - start_a, high - start_a, low - start_b, high - start_b], axis=1)
    counts = np.zeros(len(pairs), np.int64)
    rows = zip(pairs.tolist(), windows.tolist(), strict=True)
    for n, ((i, j), (d, h, w, d2, h2, w2, e, k, x, e2, k2, x2)) in enumerate(rows):
        part_a, part_b = first[i].array[d:d2, h:h2, w:w2], second[j].array[e:e2, k:k2, x:x2]
        counts[n] = np.count_nonzero(part_a & part_b)
    return counts


def _meeting(first: Sequence[Mask], second: Sequence[Mask]) -> NDArray[np.int64]:
    """``(P, 2)`` pairs whose crops overlap, in order.

    Thousands of small objects have millions of pairs: only those close to each other along one axis are compared, in
    batches that keep memory small.
    """
    (starts, ends), (others, other_ends) = corners(first), corners(second)
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    axis = int(np.ptp(others, axis=0).argmax())
    order = np.argsort(others[:, axis], kind="stable")
    begins, longest = others[order, axis], (other_ends - others)[:, axis].max()
    near = np.searchsorted(begins, starts[:, axis] - longest, side="right")
    counts = np.maximum(np.searchsorted(begins, ends[:, axis]) - near, 0)
    found = []
    for rows in np.split(np.arange(len(first)), np.flatnonzero(np.diff(np.cumsum(counts) // _PAIRS_AT_ONCE)) + 1):
        number = counts[rows]
        i = np.repeat(rows, number)
        j = order[near[i] + np.arange(len(i)) - np.repeat(np.cumsum(number) - number, number)]
        meet = (np.minimum(ends[i], other_ends[j]) > np.maximum(starts[i], others[j])).all(axis=1)
        found.append(np.stack([i[meet], j[meet]], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]

"""Objects seen by several overlapping tiles become one object each.

Two detections of one class from different tiles are the same object if their masks agree where both tiles looked.
Then, if one of them was cut by its tile's border, the object is the union of the pieces; if both are whole, the more
certain one stands. Objects that merely touch do not agree where both tiles looked, and stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmaskrcnn.postprocess.found import Found, overlap_voxels, union, voxels_within


@dataclass(frozen=True)
class Tile:
    """A window of the turned scan.

    Attributes:
        low, high: Half-open, voxel indices D, H, W.
        margin: An object that comes so close to a border (voxels) counts as cut by it: one voxel of the network.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    margin: tuple[int, int, int]


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First voxels of tiles of length ``tile`` that cover ``length`` and share at least ``overlap`` of themselves.

    The last one ends at the end; one tile serves if it is long enough.
    """
    if length <= tile:
        return [0]
    count = -(-(length - tile) // max(1, int(tile * (1 - overlap)))) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def merge_tiles(found: Sequence[tuple[Found, Tile]], *, shape: Sequence[int], merge_iou: float) -> list[Found]:
    """Join what tiles found.

    Args:
        found: Objects with the tile each comes from.
        shape: D, H, W of the turned scan.
        merge_iou: Agreement (intersection over union of the masks within both tiles) from which two are one.

    Returns:
        Objects by falling score.
    """
    order = sorted(range(len(found)), key=lambda i: -found[i][0].score)
    parent = list(range(len(found)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for rank, i in enumerate(order):
        for j in order[:rank]:
            if root(i) != root(j) and _same(found[i], found[j], merge_iou):
                parent[root(i)] = root(j)  # j is the more certain one
                break
    groups: dict[int, list[int]] = {}
    for i in order:
        groups.setdefault(root(i), []).append(i)
    return [_join([found[i] for i in members], shape) for members in groups.values()]


def _same(a: tuple[Found, Tile], b: tuple[Found, Tile], merge_iou: float) -> bool:
    (one, tile_one), (two, tile_two) = a, b
    if one.label != two.label or tile_one == tile_two:
        return False
    shared = overlap_voxels(one, two)
    if not shared:
        return False
    low = [max(x, y) for x, y in zip(tile_one.low, tile_two.low, strict=True)]
    high = [min(x, y) for x, y in zip(tile_one.high, tile_two.high, strict=True)]
    together = voxels_within(one, low, high) + voxels_within(two, low, high) - shared
    return shared / together >= merge_iou


def _join(members: list[tuple[Found, Tile]], shape: Sequence[int]) -> Found:
    whole = [found for found, tile in members if not _is_cut(found, tile, shape)]
    if whole:
        return whole[0]
    return union([found for found, _ in members], score=members[0][0].score)


def _is_cut(found: Found, tile: Tile, shape: Sequence[int]) -> bool:
    """Whether an object reaches a border of its tile that is not the scan's own."""
    for axis in range(3):
        first, last = found.start[axis], found.start[axis] + found.mask.shape[axis]
        at_low = tile.low[axis] > 0 and first < tile.low[axis] + tile.margin[axis]
        at_high = tile.high[axis] < shape[axis] and last > tile.high[axis] - tile.margin[axis]
        if at_low or at_high:
            return True
    return False

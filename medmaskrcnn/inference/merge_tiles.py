"""Merges detections of the same object from overlapping tiles.

Two detections of one class from different tiles are the same object if their masks agree where the tiles overlap.
Pairs are joined by descending agreement. Two detections of one tile are never joined, so two touching tumours stay
separate even if a neighbouring tile detected them as one. Of the pieces of an object, the highest-scoring one is kept
whose tile contains all the others, since that tile covers the whole object; if there is none, the object is the union
of the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.inference.detection import Detection, join_detections
from medmaskrcnn.structures.mask import corners


@dataclass(frozen=True)
class Tile:
    """A window of the turned scan: the voxels whose centres lie in it.

    Attributes:
        low, high: Voxel indices D, H, W; half-open.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def holds(self, found: Detection) -> bool:
        """Whether the whole object lies in the tile."""
        begins = all(a >= b for a, b in zip(found.mask.start, self.low, strict=True))
        return begins and all(a <= b for a, b in zip(found.mask.end, self.high, strict=True))


Seen = tuple[Detection, Tile]
"""An object with the tile in which it was found."""


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First voxels of tiles of length ``tile`` that cover ``length`` and overlap by at least ``overlap`` of a tile.

    The last tile ends at the end of the axis; a single tile is used if it is long enough.
    """
    if length <= tile:
        return [0]
    count = -(-(length - tile) // max(1, int(tile * (1 - overlap)))) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def merge_tiles(seen: Sequence[Seen], *, merge_iou: float) -> list[Detection]:
    """Merge the detections of overlapping tiles.

    Args:
        seen: Objects, each with its tile.
        merge_iou: Minimum agreement (intersection over union of the masks where both tiles overlap) of one object.

    Returns:
        Objects by descending score of their best piece.
    """
    ranked = sorted(seen, key=lambda s: -s[0].score)
    group_of = [[i] for i in range(len(ranked))]
    for _, i, j in sorted(_agreeing_pairs(ranked, merge_iou)):
        one, two = group_of[i], group_of[j]
        if one is not two and {ranked[k][1] for k in one}.isdisjoint(ranked[k][1] for k in two):
            joined = sorted(one + two)
            for k in joined:
                group_of[k] = joined
    return [_join([ranked[k] for k in group]) for i, group in enumerate(group_of) if group[0] == i]


def _agreeing_pairs(ranked: Sequence[Seen], merge_iou: float) -> Iterator[tuple[float, int, int]]:
    """``(-agreement, i, j)`` of every pair of detections that may be one object."""
    starts, ends = corners([found.mask for found, _ in ranked])
    for j in range(len(ranked)):
        meets = (np.minimum(ends[j], ends[:j]) > np.maximum(starts[j], starts[:j])).all(axis=1)
        for i in np.flatnonzero(meets).tolist():
            agreement = _agreement(ranked[i], ranked[j])
            if agreement and agreement >= merge_iou:
                yield -agreement, i, j


def _agreement(a: Seen, b: Seen) -> float:
    """Intersection over union of two masks where their tiles overlap; 0 if they cannot be one object."""
    (one, tile_one), (two, tile_two) = a, b
    if one.label != two.label or tile_one == tile_two:
        return 0.0
    low = [max(x, y) for x, y in zip(tile_one.low, tile_two.low, strict=True)]
    high = [min(x, y) for x, y in zip(tile_one.high, tile_two.high, strict=True)]
    mask, other = one.mask.cropped(low, high), two.mask.cropped(low, high)
    shared = mask.overlap(other)
    return shared / (mask.n_voxels + other.n_voxels - shared) if shared else 0.0


def _join(pieces: Sequence[Seen]) -> Detection:
    """One object from its pieces, given by descending score."""
    for found, tile in pieces:
        if all(tile.holds(other) for other, _ in pieces):
            return found
    return join_detections([found for found, _ in pieces], score=pieces[0][0].score)

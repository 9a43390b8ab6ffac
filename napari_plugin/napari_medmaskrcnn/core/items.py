"""One instance under review, and what can be done to masks: pure functions, without napari or Qt.

Masks are crops on the scan's own grid, as everywhere in the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.structures.case_result import Measurement
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import BoolArray, Instances, tight_crop

Verdict = Literal["", "accepted", "rejected"]
Start = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Item:
    """One instance under review; a change makes a new one with the same key.

    Attributes:
        key: Its value in the Labels layers, from 1; stays the same however thresholds and edits change.
        class_name: What it is.
        score: 0..1; 1 for what a person drew.
        box: ``(6,)`` float32, detection box in voxel coordinates: minima D, H, W, then maxima.
        start: Voxel index D, H, W of the mask crop's first voxel.
        mask: ``(d, h, w)`` boolean, tight; ``(0, 0, 0)`` if it has no voxel.
        size: Its measurement.
        verdict: What the user decided, ``""`` if nothing: its score decides then.
        changed: Whether a person drew or changed its mask or class.
    """

    key: int
    class_name: str
    score: float
    box: NDArray[np.float32]
    start: Start
    mask: BoolArray
    size: Measurement
    verdict: Verdict = ""
    changed: bool = False

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """The scan's voxels that the mask crop covers."""
        d, h, w = (slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))
        return d, h, w


def tight_box(start: Start, mask: BoolArray) -> NDArray[np.float32]:
    """``(6,)``: the box around a tight mask crop ``(d, h, w)``, minima D, H, W, then maxima, in the scan's voxels."""
    return np.array([*start, *np.add(start, mask.shape)], np.float32)


def to_instances(grid: Grid, class_names: tuple[str, ...], items: Sequence[Item]) -> Instances:
    """Items as the library's structure, in their order."""
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([class_names.index(item.class_name) for item in items], np.int64),
        scores=np.array([item.score for item in items], np.float32),
        boxes=np.array([item.box for item in items], np.float32).reshape(-1, 6),
        mask_starts=np.array([item.start for item in items], np.int64).reshape(-1, 3),
        masks=tuple(item.mask for item in items),
    )


def united(parts: Sequence[tuple[Start, BoolArray]]) -> tuple[Start, BoolArray]:
    """The union of several mask crops ``(d, h, w)`` that each hold a voxel; a start is a crop's first voxel D, H, W."""
    low = np.min([start for start, _ in parts], axis=0)
    high = np.max([np.add(start, mask.shape) for start, mask in parts], axis=0)
    whole = np.zeros(high - low, np.bool_)
    for start, mask in parts:
        offset = np.subtract(start, low)
        whole[tuple(slice(a, a + n) for a, n in zip(offset, mask.shape, strict=True))] |= mask
    return tight_crop(whole, low.tolist())


def divided(start: Start, mask: BoolArray, voxel_size: Sequence[float]) -> list[tuple[Start, BoolArray]]:
    """A mask in pieces: its separate parts; if it is in one, the two that it falls into at its narrowest place.

    It is worn away from outside, in steps of a voxel, until it falls apart; every voxel then goes to the nearest of the
    parts that are left. What never falls apart (a ball) is cut in two through its centroid, across its longest axis.

    Args:
        start: Voxel index of the crop's first voxel.
        mask: ``(d, h, w)`` with at least two voxels.
        voxel_size: Along D, H, W, in any one unit.

    Returns:
        Two or more pieces, the largest first.
    """
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        pieces = _worn_apart(mask, voxel_size)
        if pieces is None:
            pieces = _cut_across(mask, voxel_size)
    found = [tight_crop(pieces == number, start) for number in range(1, int(pieces.max()) + 1)]
    return sorted((piece for piece in found if piece[1].size), key=lambda piece: -np.count_nonzero(piece[1]))


def _worn_apart(mask: BoolArray, voxel_size: Sequence[float]) -> NDArray[np.int32] | None:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    step = min(voxel_size)
    for least in np.arange(step, float(depth.max()), step):
        cores, count = ndimage.label(depth > least, np.ones((3, 3, 3)))
        if count >= 2:
            nearest = ndimage.distance_transform_edt(
                cores == 0, sampling=voxel_size, return_distances=False, return_indices=True
            )
            return np.where(mask, cores[tuple(nearest)], 0)
    return None


def _cut_across(mask: BoolArray, voxel_size: Sequence[float]) -> NDArray[np.int32]:
    at = np.argwhere(mask) * np.asarray(voxel_size)
    away = at - at.mean(axis=0)
    longest = np.linalg.svd(away.T @ away)[0][:, 0]
    along = away @ longest
    pieces = np.zeros(mask.shape, np.int32)
    pieces[mask] = np.where(along > np.median(along), 2, 1)
    return pieces

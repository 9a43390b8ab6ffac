"""An instance under review, and functions to convert and split it; without napari or Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.structures.case_result import Measurement
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, Removal
from medmaskrcnn.structures.label_maps import NEIGHBOURS, connected_components, masks_of_labels
from medmaskrcnn.structures.mask import BoolArray, Mask

Verdict = Literal["", "accepted", "rejected"]


@dataclass(frozen=True, eq=False)
class Item:
    """One instance under review; a change makes a new object with the same key.

    Attributes:
        key: Its value in the Labels layers, from 1; stays the same however thresholds and edits change.
        class_name: Its class.
        score: 0..1; 1 if a person drew it.
        box: ``(6,)`` float32, detection box in voxel coordinates: minima D, H, W, then maxima.
        mask: Its mask, tightly cropped.
        size: Its measurement.
        verdict: The user's decision; with ``""`` its score decides.
        changed: Whether a person drew or changed its mask or class.
        removed: Why the model's steps removed it: its score then counts for nothing, but the user may accept it.
    """

    key: int
    class_name: str
    score: float
    box: NDArray[np.float32]
    mask: Mask
    size: Measurement
    verdict: Verdict = ""
    changed: bool = False
    removed: Removal = Removal.NONE


def to_instances(grid: Grid, class_names: tuple[str, ...], items: Sequence[Item]) -> Instances:
    """Items as the library's structure, in their order."""
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([class_names.index(item.class_name) for item in items], np.int64),
        scores=np.array([item.score for item in items], np.float32),
        boxes=np.array([item.box for item in items], np.float32).reshape(-1, 6),
        masks=tuple(item.mask for item in items),
        removed=np.array([item.removed for item in items], np.uint8),
    )


def divided(mask: Mask, voxel_size: Sequence[float]) -> list[Mask]:
    """Split a mask: into its connected components, or if there is one, in two at its narrowest place.

    It is eroded in steps of one voxel until it falls apart; every voxel is then assigned to the nearest remaining part.
    A mask that never falls apart (a ball) is cut in two through its centroid, perpendicular to its longest axis.

    Args:
        mask: At least two voxels.
        voxel_size: Along D, H, W, in any unit.

    Returns:
        Two or more pieces, the largest first.
    """
    found = connected_components(mask)
    if len(found) < 2:
        pieces = _worn_apart(mask.array, voxel_size)
        if pieces is None:
            pieces = _cut_across(mask.array, voxel_size)
        found = [piece.shifted(mask.start) for piece in masks_of_labels(pieces).values()]
    return sorted(found, key=lambda piece: -piece.n_voxels)


def _worn_apart(mask: BoolArray, voxel_size: Sequence[float]) -> NDArray[np.int32] | None:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    step = min(voxel_size)
    for least in np.arange(step, float(depth.max()), step):
        cores, count = ndimage.label(depth > least, NEIGHBOURS)
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

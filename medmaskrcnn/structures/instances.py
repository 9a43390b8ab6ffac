"""Instances of one scan: objects that may overlap, each with a cropped mask.

A tumour lies inside a liver, so a label map cannot represent both; label maps are only an export of this structure.
No dense ``N x D x H x W`` array is built anywhere: memory is bounded by the objects' own boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask, corners


class Removal(IntEnum):
    """Why a candidate is not in the result, whatever its score. The values are those in ``instances.npz``.

    A candidate below the score threshold is not removed: another threshold takes it in.
    """

    NONE = 0
    """Not removed."""
    CONTAINED = 1
    """Objects of its class with higher scores contain most of it (:mod:`medmaskrcnn.inference.suppress`)."""
    DUPLICATE = 2
    """A body has one object of its class, and another candidate has a higher score."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects of one scan, on the scan's own grid, ordered by descending score.

    Attributes:
        grid: The scan's grid.
        class_names: Names of the classes; ``labels`` index into it (0 is the first class, not background).
        labels: ``(N,)`` int64, class of each object.
        scores: ``(N,)`` float32 in [0, 1].
        boxes: ``(N, 6)`` float32, detection boxes in voxel coordinates: minima D, H, W, then maxima.
        masks: N boolean masks, each tight around its object (its first and last planes along every axis are not
            empty); a crop of shape ``(0, 0, 0)`` for an object without voxels.
        removed: ``(N,)`` uint8, the :class:`Removal` of each object; none is removed by default.

    Raises:
        ValueError: if lengths disagree, a label or removal is unknown, or a mask is soft or extends beyond the grid.
    """

    grid: Grid
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: tuple[Mask, ...]
    removed: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        n = len(self.masks)
        if not self.removed.size:
            object.__setattr__(self, "removed", np.zeros(n, np.uint8))
        expected = {"labels": (n,), "scores": (n,), "boxes": (n, 6), "removed": (n,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if n and (self.labels.min() < 0 or self.labels.max() >= len(self.class_names)):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}, got {self.labels.tolist()}")
        if n and self.removed.max() > max(Removal):
            raise ValueError(f"removed must lie in 0..{max(Removal)}, got {self.removed.tolist()}")
        if any(mask.array.dtype != np.bool_ for mask in self.masks):
            raise ValueError("masks of instances must be boolean, not soft")
        starts, ends = corners(self.masks)
        for i in np.flatnonzero((starts < 0).any(axis=1) | (ends > self.grid.shape).any(axis=1))[:1]:
            mask = self.masks[i]
            raise ValueError(f"mask at {mask.start} of shape {mask.array.shape} leaves grid {self.grid.shape}")

    @classmethod
    def from_masks(
        cls,
        grid: Grid,
        class_names: Sequence[str],
        labels: Sequence[int] | NDArray[np.int64],
        masks: Sequence[Mask],
        *,
        scores: Sequence[float] | NDArray[np.float32] | None = None,
    ) -> Instances:
        """Make instances of masks drawn by a user or read from a label map; boxes are those around the masks.

        Args:
            grid: The scan's grid.
            class_names: Names of the classes.
            labels: ``(N,)`` class of each object.
            masks: N tight masks.
            scores: ``(N,)`` in [0, 1]; 1 by default.
        """
        return cls(
            grid=grid,
            class_names=tuple(class_names),
            labels=np.array(labels, np.int64),
            scores=np.ones(len(masks), np.float32) if scores is None else np.array(scores, np.float32),
            boxes=np.concatenate(corners(masks), axis=1).astype(np.float32),
            masks=tuple(masks),
        )

    def __len__(self) -> int:
        return len(self.masks)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Instances:
        """The objects at ``indices`` ``(n,)`` (integers), in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Instances(
            grid=self.grid,
            class_names=self.class_names,
            labels=self.labels[chosen],
            scores=self.scores[chosen],
            boxes=self.boxes[chosen],
            masks=tuple(self.masks[i] for i in chosen),
            removed=self.removed[chosen],
        )

    def without_removed(self) -> Instances:
        """The objects that were not removed: those whose score decides whether they are in the result."""
        return self.select(np.flatnonzero(self.removed == Removal.NONE))

    def renamed(self, names: Mapping[str, str], class_names: Sequence[str]) -> Instances:
        """The objects under other class names; those of classes that ``names`` lacks are left out.

        Args:
            names: New name of each class that is kept; several may get one.
            class_names: The new names, in the order that the labels shall have.
        """
        lookup = np.array([class_names.index(names[n]) if n in names else -1 for n in self.class_names], np.int64)
        kept = self.select(np.flatnonzero(lookup[self.labels] >= 0) if len(self) else [])
        return replace(kept, class_names=tuple(class_names), labels=lookup[kept.labels])


def empty_instances(grid: Grid, class_names: tuple[str, ...]) -> Instances:
    """Instances of a scan without any objects."""
    return Instances.from_masks(grid, class_names, [], [])

"""What was found in one scan: objects that may overlap, each with a mask cropped to its box.

A tumour lies inside a liver, so a label map cannot hold both; it is an export of this structure, not its form.
No dense ``N x D x H x W`` array is built anywhere: memory is bounded by the objects' own boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects of one scan, in the scan's own grid, ordered by falling score.

    Attributes:
        grid: The scan's grid.
        class_names: Names of the classes; ``labels`` index into it (0 is the first class, not background).
        labels: ``(N,)`` int64, class of each object.
        scores: ``(N,)`` float32 in [0, 1].
        boxes: ``(N, 6)`` float32, detection boxes in voxel coordinates: minima D, H, W, then maxima.
        mask_starts: ``(N, 3)`` int64, voxel index D, H, W of each mask crop's first voxel.
        masks: N boolean arrays ``(d, h, w)``, each tight around its object (its first and last planes along
            every axis hold a voxel); shape ``(0, 0, 0)`` for an object without voxels.

    Raises:
        ValueError: if lengths disagree, a label is unknown or a mask leaves the grid.
    """

    grid: Grid
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask_starts: NDArray[np.int64]
    masks: tuple[BoolArray, ...]

    def __post_init__(self) -> None:
        n = len(self.masks)
        expected = {"labels": (n,), "scores": (n,), "boxes": (n, 6), "mask_starts": (n, 3)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if n and (self.labels.min() < 0 or self.labels.max() >= len(self.class_names)):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}, got {self.labels.tolist()}")
        for mask in self.masks:
            if mask.dtype != np.bool_ or mask.ndim != 3:
                raise ValueError(f"masks must be boolean (d, h, w), got {mask.dtype} {mask.shape}")
        ends = self.mask_starts + self.mask_shapes
        for i in np.flatnonzero((self.mask_starts < 0).any(axis=1) | (ends > self.grid.shape).any(axis=1))[:1]:
            start, shape = self.mask_starts[i].tolist(), self.masks[i].shape
            raise ValueError(f"mask at {start} of shape {shape} leaves grid {self.grid.shape}")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def mask_shapes(self) -> NDArray[np.int64]:
        """``(N, 3)`` int64: extents D, H, W of each mask crop."""
        return np.asarray([mask.shape for mask in self.masks], np.int64).reshape(-1, 3)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Instances:
        """The objects at ``indices`` ``(n,)`` (integers), in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Instances(
            grid=self.grid,
            class_names=self.class_names,
            labels=self.labels[chosen],
            scores=self.scores[chosen],
            boxes=self.boxes[chosen],
            mask_starts=self.mask_starts[chosen],
            masks=tuple(self.masks[i] for i in chosen),
        )

    def window(self, i: int) -> tuple[slice, slice, slice]:
        """Slices of the scan's D, H, W axes that the ``i``-th mask crop covers."""
        d, h, w = (slice(int(a), int(a) + n) for a, n in zip(self.mask_starts[i], self.masks[i].shape, strict=True))
        return d, h, w

    def tight_box(self, i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Half-open box around the ``i``-th mask: first voxel index, and last voxel index + 1, along D, H, W."""
        start = tuple(int(a) for a in self.mask_starts[i])
        return start, tuple(a + n for a, n in zip(start, self.masks[i].shape, strict=True))


def empty_instances(grid: Grid, class_names: tuple[str, ...]) -> Instances:
    """Instances of a scan in which nothing was found."""
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.zeros(0, np.int64),
        scores=np.zeros(0, np.float32),
        boxes=np.zeros((0, 6), np.float32),
        mask_starts=np.zeros((0, 3), np.int64),
        masks=(),
    )


def tight_crop(mask: BoolArray, start: Sequence[int]) -> tuple[tuple[int, int, int], BoolArray]:
    """Shrink a mask crop to the voxels that are set.

    Args:
        mask: ``(d, h, w)`` boolean.
        start: Voxel index D, H, W of ``mask[0, 0, 0]`` in the scan.

    Returns:
        The new start and the tight crop (contiguous); ``(start, (0, 0, 0)-shaped array)`` if nothing is set.
    """
    origin = tuple(int(a) for a in start)
    if not mask.any():
        return (origin[0], origin[1], origin[2]), np.zeros((0, 0, 0), dtype=np.bool_)
    window = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        window.append(slice(int(hits[0]), int(hits[-1]) + 1))
    first = (origin[0] + window[0].start, origin[1] + window[1].start, origin[2] + window[2].start)
    return first, np.ascontiguousarray(mask[tuple(window)])

"""The voxels of one object: a mask cropped to a window of its grid, the form in which all masks are stored.

Dense arrays would need objects x voxels of memory; a crop needs no more than the object's own box. Masks do not store
the shape of their grid: their container (:class:`~medmaskrcnn.structures.instances.Instances`) has the grid.

In training a mask may be soft: uint8, 255 where the object fills the voxel. The union of soft masks is their maximum
and the intersection their minimum; a voxel counts if it is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Corner = Sequence[int] | NDArray[np.integer]
"""Voxel index D, H, W."""


@dataclass(frozen=True, eq=False, init=False)
class Mask:
    """A cropped, immutable mask.

    Attributes:
        start: Voxel index D, H, W of the crop's first voxel; may lie outside of the grid.
        array: ``(d, h, w)`` bool (uint8 if soft), read-only; ``(0, 0, 0)`` for a tight mask without voxels.

    Raises:
        ValueError: if the array has another type or number of axes.

    Example:
        >>> mask = Mask((1, 0, 4), np.array([[[False, True, True]]]))
        >>> mask.end, mask.n_voxels, mask.tight().start
        ((2, 1, 7), 2, (1, 0, 5))
    """

    start: tuple[int, int, int]
    array: NDArray[Any]

    def __init__(self, start: Corner, array: NDArray[Any]) -> None:
        if array.ndim != 3 or array.dtype not in (np.bool_, np.uint8):
            raise ValueError(f"a mask must be boolean (d, h, w), got {array.dtype} {array.shape}")
        d, h, w = (int(a) for a in start)
        frozen = array.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "start", (d, h, w))
        object.__setattr__(self, "array", frozen)

    @classmethod
    def empty(cls) -> Mask:
        """A mask without voxels."""
        return cls((0, 0, 0), np.zeros((0, 0, 0), np.bool_))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.start == other.start and np.array_equal(self.array, other.array)

    @property
    def end(self) -> tuple[int, int, int]:
        """Voxel index D, H, W of the crop's last voxel, plus one."""
        (d, h, w), (depth, height, width) = self.start, self.array.shape
        return d + depth, h + height, w + width

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """Slices of the grid's axes D, H, W that the crop covers: ``scan[mask.window][mask.array]`` are its values."""
        d, h, w = map(slice, self.start, self.end)
        return d, h, w

    @property
    def box(self) -> NDArray[np.float32]:
        """``(6,)``: the box around the crop in voxel coordinates, minima D, H, W, then maxima."""
        return np.array([*self.start, *self.end], np.float32)

    @cached_property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.array))

    @property
    def is_empty(self) -> bool:
        """Whether it has no voxels."""
        return not self.array.any()

    def tight(self) -> Mask:
        """The mask cropped to its voxels (no empty first or last planes along any axis); contiguous.

        Without voxels it keeps its start, and its crop becomes ``(0, 0, 0)``.
        """
        if self.is_empty:
            return Mask(self.start, np.zeros((0, 0, 0), self.array.dtype))
        low, high = [], []
        for axis in range(3):
            hits = np.flatnonzero(self.array.any(axis=tuple(a for a in range(3) if a != axis)))
            low.append(self.start[axis] + int(hits[0]))
            high.append(self.start[axis] + int(hits[-1]) + 1)
        part = self.cropped(low, high)
        return Mask(part.start, np.ascontiguousarray(part.array))

    def shifted(self, offset: Corner) -> Mask:
        """The mask moved by ``offset`` voxels along D, H, W."""
        return Mask([a + b for a, b in zip(self.start, offset, strict=True)], self.array)

    def cropped(self, low: Corner, high: Corner) -> Mask:
        """The part inside the half-open window ``low`` .. ``high`` (voxel indices D, H, W); not tight."""
        first = [max(a, int(b)) for a, b in zip(self.start, low, strict=True)]
        last = [min(a, int(b)) for a, b in zip(self.end, high, strict=True)]
        if any(a >= b for a, b in zip(first, last, strict=True)):
            return Mask(first, np.zeros((0, 0, 0), self.array.dtype))
        inside = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, self.start, strict=True))
        return Mask(first, self.array[inside])

    def intersection(self, other: Mask) -> Mask:
        """The voxels in both masks; not tight."""
        one, two = self.cropped(other.start, other.end), other.cropped(self.start, self.end)
        return Mask(one.start, np.minimum(one.array, two.array))

    def difference(self, other: Mask) -> Mask:
        """The voxels that are not in the other mask, both boolean; tight."""
        part = other.cropped(self.start, self.end)
        if not part.array.any():
            return self.tight()
        kept = self.array.copy()
        kept[part.shifted([-a for a in self.start]).window] &= ~part.array
        return Mask(self.start, kept).tight()

    def overlap(self, other: Mask) -> int:
        """Number of voxels in both masks."""
        apart = (a >= d or c >= b for a, b, c, d in zip(self.start, self.end, other.start, other.end, strict=True))
        return 0 if any(apart) else self.intersection(other).n_voxels

    def union(self, *others: Mask) -> Mask:
        """The voxels in any of the masks, in the smallest crop that contains all of their crops."""
        parts = [mask for mask in (self, *others) if mask.array.size]
        if not parts:
            return self
        starts, ends = corners(parts)
        low = starts.min(axis=0)
        whole = np.zeros(ends.max(axis=0) - low, parts[0].array.dtype)
        for part in parts:
            place = whole[part.shifted(-low).window]
            np.maximum(place, part.array, out=place)
        return Mask(low, whole)

    def dense(self, shape: Sequence[int], start: Corner = (0, 0, 0)) -> NDArray[Any]:
        """``(d, h, w)``: the part of the grid of ``shape`` that begins at voxel ``start``, set where the mask is."""
        offset = [-int(a) for a in start]
        whole = np.zeros(shape, self.array.dtype)
        part = self.shifted(offset).cropped((0, 0, 0), shape)
        whole[part.window] = part.array
        return whole


def corners(masks: Sequence[Mask]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of the crops, ``(N, 3)`` voxel indices D, H, W each."""
    starts = np.array([mask.start for mask in masks], np.int64).reshape(-1, 3)
    return starts, starts + np.array([mask.array.shape for mask in masks], np.int64).reshape(-1, 3)

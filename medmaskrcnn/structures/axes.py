"""A permutation and flips of an array's axes, bit-exact and exactly invertible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.mask import Mask


@dataclass(frozen=True)
class AxisMap:
    """A permutation and flips of the axes D, H, W.

    Attributes:
        order: For each axis of the network's array, the axis of the scan from which it comes.
        flips: Whether that axis is reversed, per axis of the network's array.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring ``(..., D, H, W)`` of the scan to the network's axes (a view)."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        flipped = tuple(lead + axis for axis, flip in enumerate(self.flips) if flip)
        return np.flip(turned, flipped) if flipped else turned

    def apply_mask(self, mask: Mask, shape: tuple[int, ...]) -> Mask:
        """Bring a mask of the scan to the network's axes; ``shape`` is the scan's in voxels, D, H, W."""
        start = [
            shape[axis] - mask.end[axis] if flip else mask.start[axis]
            for axis, flip in zip(self.order, self.flips, strict=True)
        ]
        return Mask(start, np.ascontiguousarray(self.apply(mask.array)))

    def apply_boxes(self, boxes: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Bring boxes ``(N, 6)`` (minima, then maxima) from the scan's axes to the network's.

        Args:
            boxes: Coordinates or half-open indices in voxels.
            shape: Voxels of the scan along D, H, W.
        """
        low, high = boxes[:, list(self.order)], boxes[:, [3 + axis for axis in self.order]]
        extent = np.array([shape[axis] for axis in self.order])
        return np.concatenate(
            [np.where(self.flips, extent - high, low), np.where(self.flips, extent - low, high)], axis=1
        )

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring ``(..., D, H, W)`` in the network's axes back to the scan's (a view)."""
        lead = array.ndim - 3
        flipped = tuple(lead + axis for axis, flip in enumerate(self.flips) if flip)
        unflipped = np.flip(array, flipped) if flipped else array
        return unflipped.transpose(*range(lead), *(lead + self.order.index(axis) for axis in range(3)))

    def undo_mask(self, mask: Mask, shape: tuple[int, ...]) -> Mask:
        """Bring a mask in the network's axes back to the scan's; ``shape`` is the array's in the network's axes."""
        start = [n - b if flip else a for a, b, n, flip in zip(mask.start, mask.end, shape, self.flips, strict=True)]
        turned_back = np.ascontiguousarray(self.undo(mask.array))
        return Mask([start[self.order.index(axis)] for axis in range(3)], turned_back)

    def undo_boxes(self, boxes: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Bring boxes ``(N, 6)`` (minima, then maxima) in the network's axes back to the scan's.

        Args:
            boxes: Coordinates or half-open indices in voxels.
            shape: The array's shape in the network's axes, in the same voxels.
        """
        low, high = boxes[:, :3].copy(), boxes[:, 3:].copy()
        for axis, flip in enumerate(self.flips):
            if flip:
                low[:, axis], high[:, axis] = shape[axis] - boxes[:, 3 + axis], shape[axis] - boxes[:, axis]
        back = [self.order.index(axis) for axis in range(3)]
        return np.concatenate([low[:, back], high[:, back]], axis=1)

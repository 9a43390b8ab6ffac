"""Converts rectangles drawn by the user to boxes in the scan's voxels, for a region to segment or a missed tumour.

A rectangle lies on the current slice. Several on different slices span a box from the first slice to the last.
Pure functions; the Shapes layer that is drawn on is made in :mod:`.host`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.settings import Region
from napari_medmaskrcnn.layers.display_frame import DisplayFrame

Box = tuple[float, ...]
_FLAT = 1e-3


def drawn_box(shapes: Sequence[NDArray[np.float64]], frame: DisplayFrame, keep: Sequence[int]) -> Box | None:
    """The box around the drawn shapes.

    Args:
        shapes: Corners ``(n, ndim)`` in the data coordinates of a layer with the axes ``keep`` of ``frame``.
        frame: How the scan is shown.
        keep: The world axes that the layer has.

    Returns:
        ``(6,)`` minima D, H, W, then maxima in voxel coordinates, clipped to the scan; along the slider axis it covers
        the slices that were drawn on. ``None`` if nothing was drawn, or nothing within the scan.
    """
    if not len(shapes):
        return None
    corners = np.concatenate([np.asarray(shape, np.float64) for shape in shapes])
    low, high = np.zeros(3) - 0.5, np.array(frame.shape) - 0.5
    for column, axis in enumerate(keep):
        low[axis], high[axis] = corners[:, column].min(), corners[:, column].max()
        if all(np.ptp(np.asarray(shape)[:, column]) < _FLAT for shape in shapes):  # the slider's axis: whole slices
            low[axis], high[axis] = np.round(low[axis]) - 0.5, np.round(high[axis]) + 0.5
    low, high = np.maximum(low, -0.5), np.minimum(high, np.array(frame.shape) - 0.5)
    if (high - low < _FLAT).any():
        return None
    ends = frame.coordinate_to_stored(np.stack([low, high]))
    return tuple(float(x) for x in (*ends.min(axis=0), *ends.max(axis=0)))


def one_slice_axis(box: Box) -> int | None:
    """The axis D, H or W along which a box is a single slice; ``None`` if there is none, or more than one."""
    thin = [axis for axis in range(3) if box[3 + axis] - box[axis] <= 1 + _FLAT]
    return thin[0] if len(thin) == 1 else None


def deepened(box: Box, axis: int, slices: int, shape: Sequence[int]) -> Box:
    """A one-slice box extended to ``slices`` along ``axis``, as evenly to both sides as the scan allows."""
    low = max(0.0, min(box[axis] - (slices - 1) // 2, shape[axis] - slices))
    grown = list(box)
    grown[axis], grown[3 + axis] = low, min(float(shape[axis]), low + slices)
    return tuple(grown)


def usual_depth(box: Box, axis: int, voxel_size: Sequence[float]) -> int:
    """Number of slices that makes a one-slice box as deep as it is wide, in mm: tumours are roughly round."""
    width = np.mean([(box[3 + a] - box[a]) * voxel_size[a] for a in range(3) if a != axis])
    return max(1, round(float(width) / voxel_size[axis]))


def to_region(box: Box, shape: Sequence[int], whole_axis: int | None = None) -> Region:
    """The whole voxels that a box covers; along ``whole_axis`` all voxels of the scan."""
    low = [int(np.floor(box[axis] + _FLAT)) for axis in range(3)]
    high = [int(np.ceil(box[3 + axis] - _FLAT)) for axis in range(3)]
    if whole_axis is not None:
        low[whole_axis], high[whole_axis] = 0, int(shape[whole_axis])
    high = [max(b, a + 1) for a, b in zip(low, high, strict=True)]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])

"""Which slices of a scan its labels cover, and whether they end as objects do or as the labelling did.

Where an object ends, its cross section shrinks. Labels that end with a large cross section inside the scan, or that lie
in every fifth slice only, were drawn in a part of the slices; training would take the objects of all others for
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask

_LARGE, _VERY_LARGE = (
    0.5,
    0.7,
)  # share of the largest cross section, at both ends or at one; a sphere's end has a quarter
_FEWEST = 8  # slices from which ends can be told
_MOST = 0.8  # share of the scan's slices; labels of more than this cover the scan
_GAPS = 3  # between labelled slices, from which they are no chance
_GO_ON = 0.6  # share of the gaps across which objects go on
_SAME_PLACE = 0.3  # overlap (IoU) of the slices on both sides of a gap
_SHORT = 2  # slices of a labelled stretch, in the median
_THICK = 1.2  # spacing of the slices against that in plane from which an axis is that of the slices


@dataclass(frozen=True)
class LabelCoverage:
    """Labelled slices of a scan.

    Attributes:
        labelled, slices: Number of slices with an object, and of all.
        first, last: The first and last of them, from 0.
        abrupt: They end inside the scan with a large cross section.
        gaps: Gaps of unlabelled slices across which objects go on, where only single slices were labelled; else 0.
    """

    labelled: int
    slices: int
    first: int
    last: int
    abrupt: bool
    gaps: int


def label_coverage(masks: Sequence[Mask], grid: Grid) -> LabelCoverage | None:
    """The labelled slices along the scan's slice axis; ``None`` without an object or for a single image."""
    axis = _slice_axis(grid)
    n = grid.shape[axis]
    areas = np.zeros(n, np.int64)
    for mask in masks:
        others = tuple(other for other in range(3) if other != axis)
        areas[mask.window[axis]] += mask.array.sum(axis=others, dtype=np.int64)
    labelled = np.flatnonzero(areas)
    if n == 1 or not len(labelled):
        return None
    first, last = int(labelled[0]), int(labelled[-1])
    gaps = _gaps(masks, labelled, axis, grid.shape)
    span = last - first + 1
    ends = [areas[at] / areas.max() for at, border in ((first, 0), (last, n - 1)) if at != border]
    large = min(ends, default=0) >= _LARGE or max(ends, default=0) >= _VERY_LARGE
    abrupt = not gaps and _FEWEST <= span <= _MOST * n and large
    return LabelCoverage(len(labelled), n, first, last, bool(abrupt), gaps)


def _gaps(masks: Sequence[Mask], labelled: NDArray[np.intp], axis: int, shape: tuple[int, int, int]) -> int:
    """The number of gaps across which objects go on, if labelled stretches are short and most gaps are like this."""
    breaks = np.flatnonzero(np.diff(labelled) > 1)
    runs = np.diff([0, *(breaks + 1), len(labelled)])
    if len(breaks) < _GAPS or np.median(runs) > _SHORT:
        return 0
    before = [_slice(masks, int(labelled[at]), axis, shape) for at in breaks]
    after = [_slice(masks, int(labelled[at + 1]), axis, shape) for at in breaks]
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in zip(before, after, strict=True)]
    going_on = sum(overlap >= _SAME_PLACE for overlap in overlaps)
    return going_on if going_on >= _GO_ON * len(breaks) else 0


def _slice(masks: Sequence[Mask], at: int, axis: int, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels of all objects in one slice, the shape of the scan without the axis."""
    plane = np.zeros([n for other, n in enumerate(shape) if other != axis], np.bool_)
    for mask in masks:
        window = list(mask.window)
        across = window.pop(axis)
        if across.start <= at < across.stop:
            plane[tuple(window)] |= mask.array.take(at - across.start, axis=axis) > 0
    return plane


def _slice_axis(grid: Grid) -> int:
    """The axis along which voxels are clearly thickest, else the first."""
    if grid.spacing_mm is None:
        return 0
    axis = int(np.argmax(grid.spacing_mm))
    second = sorted(grid.spacing_mm)[1]
    return axis if grid.spacing_mm[axis] > _THICK * second and grid.shape[axis] > 1 else 0

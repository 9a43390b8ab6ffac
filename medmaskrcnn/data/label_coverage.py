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

_LARGE = 0.5  # share of the largest cross section; a sphere of eight slices ends with a quarter
_FEWEST = 8  # slices from which ends can be told
_MOST = 0.8  # share of the scan's slices; labels of more than this cover the scan
_RUNS = 4  # labelled stretches from which they can be regular
_REGULAR = 0.8  # share of the distances between them that are the same
_THICK = 1.2  # spacing of the slices against that in plane from which an axis is that of the slices


@dataclass(frozen=True)
class LabelCoverage:
    """Labelled slices of a scan.

    Attributes:
        labelled, slices: Number of slices with an object, and of all.
        first, last: The first and last of them, from 0.
        abrupt: They end inside the scan with a large cross section.
        every: They lie in every so many slices only (2 and more); 1 if they follow each other.
    """

    labelled: int
    slices: int
    first: int
    last: int
    abrupt: bool
    every: int


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
    every = _every(labelled)
    span = last - first + 1
    ends = [areas[at] for at, border in ((first, 0), (last, n - 1)) if at != border]
    abrupt = every == 1 and span >= _FEWEST and span <= _MOST * n and min(ends, default=0) >= _LARGE * areas.max()
    return LabelCoverage(len(labelled), n, first, last, bool(abrupt), every)


def _every(labelled: NDArray[np.intp]) -> int:
    """The distance between single labelled slices if it is a regular one of 2 or more, else 1."""
    steps = np.diff(labelled)
    if len(steps) < _RUNS - 1 or (steps == 1).any():
        return 1
    values, often = np.unique(steps, return_counts=True)
    return int(values[often.argmax()]) if often.max() >= _REGULAR * len(steps) else 1


def _slice_axis(grid: Grid) -> int:
    """The axis along which voxels are clearly thickest, else the first."""
    if grid.spacing_mm is None:
        return 0
    axis = int(np.argmax(grid.spacing_mm))
    second = sorted(grid.spacing_mm)[1]
    return axis if grid.spacing_mm[axis] > _THICK * second and grid.shape[axis] > 1 else 0

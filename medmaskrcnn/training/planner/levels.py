"""Which level of the pyramid a box is read from: equation 1 of FPN (Lin et al. 2017) with its constants from the data.

FPN sends a box of 224 pixels, the size of ImageNet's pictures, to P4, where it has 14 cells across. Objects of a scan
resampled for them are far smaller than that, so nearly all would be read from P2, and the other levels' maps would
never learn from a box. Here the median object's size parts the first level from the second, as long as a box then
keeps a cell for each bin of the box head, and no more than one for each bin of the mask head is asked for.
"""

from __future__ import annotations

import numpy as np

from medmaskrcnn.training.planner.dataset_fingerprint import Array, DatasetFingerprint
from medmaskrcnn.training.planner.grid import GridPlan

_FEWEST_CELLS, _MOST_CELLS = 7.0, 14.0  # across a box on its level: bins of the box head and of the mask head
_LEVELS = 4  # P2..P5, from which boxes are read


def plan_levels(fingerprint: DatasetFingerprint, grid: GridPlan, reasons: dict[str, str]) -> tuple[float, int]:
    """``roi.canonical_size`` in voxels and ``roi.canonical_level``; the reason is added to ``reasons``."""
    names, sizes = grid.objects(fingerprint)
    edges = np.sqrt(sizes[:, 1] * sizes[:, 2])
    weights = np.array([1.0 / names.count(name) for name in names])
    stride = grid.strides[1][-1]
    level = stride.bit_length() - 1
    size = float(np.clip(_weighted_median(edges, weights), _FEWEST_CELLS * stride, _MOST_CELLS * stride))
    size = float(f"{size:.3g}")
    places = np.clip(np.floor(np.log2(edges / size) + 1 + 1e-6), 0, _LEVELS - 1).astype(int)
    shares = np.bincount(places, minlength=_LEVELS) / len(places)
    read = ", ".join(f"P{k + 2} {share:.0%}" for k, share in enumerate(shares) if share)
    reasons["model.roi.canonical_size"] = (
        f"Boxes from {size:g} voxels on, {size / stride:.3g} cells across, are read from P3, twice as large ones "
        f"from P4, smaller ones from P2: {read} of {len(edges)} objects. The median object decides, between 7 and 14 "
        "cells."
    )
    reasons["model.roi.canonical_level"] = f"Of P3, whose stride is {stride}, 2 to the power {level}."
    return size, level


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.5)])

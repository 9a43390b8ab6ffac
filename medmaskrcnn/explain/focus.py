"""The one object that the pictures follow from its proposal to its mask, and the slice they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medmaskrcnn.explain.record import Walk
from medmaskrcnn.settings import RoISettings
from medmaskrcnn_kernels.operators import least_areas
from medmaskrcnn_kernels.roi_align_portable import levels_of


@dataclass(frozen=True)
class Focus:
    """The detection, proposal and slice that the page follows.

    Attributes:
        detection: Index of the detection, ``None`` if there is none.
        proposal: Index of the proposal it came from; the best proposal if nothing was detected, ``None`` if there are
            no proposals either.
        plane: Slice of the window along D that is shown; 0 in 2D.
        levels: ``(P,)`` int64, index into the pyramid of the level that RoIAlign read for each proposal.
    """

    detection: int | None
    proposal: int | None
    plane: int
    levels: Tensor


def choose_focus(walk: Walk, roi: RoISettings, plane: int | None) -> Focus:
    """Follow the detection with the highest score (among those on ``plane``, if one was requested)."""
    levels = levels_of_boxes(walk, walk.proposals, roi)
    boxes = walk.detections.boxes
    shown = (
        torch.arange(len(boxes)) if plane is None or walk.dims == 2 else torch.nonzero(on_plane(boxes, plane)).flatten()
    )
    if not len(shown):
        middle = 0 if walk.dims == 2 else walk.shape[0] // 2
        first = 0 if len(walk.proposals) else None
        return Focus(None, first, middle if plane is None else plane, levels)
    best = int(shown[0])
    if plane is None or walk.dims == 2:
        plane = _middle(boxes[best], walk)
    return Focus(best, origin_of(walk, best), plane, levels)


def levels_of_boxes(walk: Walk, boxes: Tensor, roi: RoISettings) -> Tensor:
    """Index into the pyramid of the level that RoIAlign reads for each box ``(N, 2S)`` (FPN, equation 1)."""
    numbers = list(range(2, 2 + len(walk.pyramid) - 1))
    areas = least_areas(numbers, canonical_size=roi.canonical_size, canonical_level=roi.canonical_level)
    return levels_of(boxes, areas)


def on_plane(boxes: Tensor, plane: int) -> Tensor:
    """Which boxes ``(N, 2S)`` (voxels of the window) intersect a slice of it, ``(N,)`` bool; all of them in 2D."""
    dims = boxes.shape[1] // 2
    if dims == 2:
        return torch.ones(len(boxes), dtype=torch.bool)
    return (boxes[:, 0] <= plane + 0.5) & (boxes[:, 3] > plane + 0.5)


def _middle(box: Tensor, walk: Walk) -> int:
    if walk.dims == 2:
        return 0
    return min(max(int((box[0] + box[3]) / 2), 0), walk.shape[0] - 1)


def origin_of(walk: Walk, detection: int) -> int:
    """The proposal of a detection: the one whose refined box of that class it is."""
    same_class = walk.certain.labels == walk.detections.labels[detection]
    distance = (walk.certain.boxes - walk.detections.boxes[detection]).abs().sum(dim=1)
    row = int(torch.where(same_class, distance, torch.inf).argmin())
    return int(walk.certain_regions[row])

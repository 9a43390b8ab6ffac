"""Assigns ground-truth objects to anchors and proposals.

Two rules: fixed IoU thresholds (Faster R-CNN, section 3.1.2) and ATSS (Zhang et al. 2020), which sets the
threshold per object from its own candidates and so suits objects of a few voxels, whose best anchor may have an
IoU of 0.3. ATSS is MONAI's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medmaskrcnn.models.box_coder import box_iou

if TYPE_CHECKING:
    from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher

BACKGROUND = -1
IGNORED = -2
_ATSS_CANDIDATES = 4  # cells per level that compete for an object; nnDetection's choice for medical objects


def match_by_iou(
    objects: Tensor, boxes: Tensor, *, foreground: float, background: float, allow_low_quality_matches: bool
) -> Tensor:
    """Match boxes to objects by fixed thresholds.

    Args:
        objects: ``(N, 2S)`` ground-truth boxes in voxels.
        boxes: ``(M, 2S)`` anchors or proposals in voxels.
        foreground: A box with at least this IoU is a positive of its best object.
        background: A box with a lower IoU is background; one in between is ignored.
        allow_low_quality_matches: Also make each object's best boxes its positives, however low their IoU
            (Faster R-CNN, rule i).

    Returns:
        ``(M,)`` int64: index of the object, :data:`BACKGROUND` or :data:`IGNORED`.
    """
    if not len(objects):
        return torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    iou = box_iou(objects, boxes)
    best, index = iou.max(dim=0)
    matches = index.clone()
    matches[best < foreground] = IGNORED
    matches[best < background] = BACKGROUND
    if allow_low_quality_matches and iou.numel():
        of_object = iou.max(dim=1, keepdim=True).values
        rescued = ((iou == of_object) & (of_object > 0)).any(dim=0)
        matches[rescued] = index[rescued]
    return matches


def match_atss(objects: Tensor, anchors: Tensor, *, cells_per_level: Sequence[int], per_cell: int) -> Tensor:
    """Match anchors to objects by ATSS.

    Args:
        objects: ``(N, 2S)`` ground-truth boxes in voxels.
        anchors: ``(M, 2S)`` anchors of all levels in voxels.
        cells_per_level: Number of cells of each level's map.
        per_cell: Anchors per cell.

    Returns:
        ``(M,)`` int64: index of the object or :data:`BACKGROUND`.
    """
    if not len(objects):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    return _atss().compute_matches(objects, anchors, list(cells_per_level), per_cell)[1].to(torch.int64)


@cache
def _atss() -> ATSSMatcher:
    from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher  # in training only: it takes seconds to import

    return ATSSMatcher(_ATSS_CANDIDATES, similarity_fn=box_iou, center_in_gt=False)

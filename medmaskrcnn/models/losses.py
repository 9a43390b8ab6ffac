"""The multi-task loss, term by term (Mask R-CNN, section 3: ``L = L_cls + L_box + L_mask``, plus the RPN's two).

Each term is a plain function of predictions and targets. An image without objects gives finite terms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn_kernels import roi_align

_FULL_BYTE = 255.0
_SMOOTH_L1_BETA = 1.0 / 9  # where the loss turns from square to linear (Detectron's constant)


def rpn_losses(objectness: Tensor, is_object: Tensor, deltas: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the sampled anchors (Faster R-CNN, eq. 1).

    Args:
        objectness: ``(n,)`` logits of sampled anchors.
        is_object: ``(n,)`` 1 for positives, 0 for negatives.
        deltas: ``(p, 2S)`` predicted deltas of the positives.
        wanted: ``(p, 2S)`` their targets.

    Returns:
        Objectness loss (mean over the sample) and box loss (sum over positives, divided by the sample's size).
    """
    count = max(1, len(objectness))
    classification = F.binary_cross_entropy_with_logits(objectness, is_object, reduction="sum") / count
    return classification, F.smooth_l1_loss(deltas, wanted, beta=_SMOOTH_L1_BETA, reduction="sum") / count


def box_losses(logits: Tensor, classes: Tensor, deltas: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the sampled regions (Fast R-CNN, eq. 1).

    Args:
        logits: ``(R, K + 1)``.
        classes: ``(R,)`` int64, 0 is background.
        deltas: ``(p, 2S)`` predicted deltas of the positives, for their own class.
        wanted: ``(p, 2S)`` their targets.
    """
    count = max(1, len(logits))
    classification = F.cross_entropy(logits, classes, reduction="sum") / count
    return classification, F.smooth_l1_loss(deltas, wanted, beta=_SMOOTH_L1_BETA, reduction="sum") / count


def mask_targets(masks: Tensor, boxes: Tensor, owners: Tensor, size: int) -> Tensor:
    """What the mask head is to predict in each region.

    Args:
        masks: ``(N, *spatial)`` occupancy of each object on the input's grid, 0..1, or 0..255 as uint8; fractions
            where it was resampled, so that a boundary between voxels is learnt where it lies.
        boxes: ``(p, 2S)`` regions in voxels.
        owners: ``(p,)`` int64, the object of each region.
        size: Bins per axis.

    Returns:
        ``(p, *(size,) * S)`` float32: occupancy of each bin, the mean of two linear samples along each axis.
    """
    used, index = owners.unique(return_inverse=True)  # only objects that a region looks at are made float
    occupancy = masks[used][:, None].float() / (_FULL_BYTE if masks.dtype == torch.uint8 else 1.0)
    return roi_align(occupancy, boxes, index, output_size=(size,) * (masks.ndim - 1), spatial_scale=1.0)[:, 0]


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over positives and bins, own class only (Mask R-CNN, section 3).

    Args:
        logits: ``(p, *size)`` of the region's true class.
        targets: ``(p, *size)`` in 0..1.
    """
    if not logits.numel():
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, targets)

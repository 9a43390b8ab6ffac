"""The multi-task loss, term by term (Mask R-CNN, section 3: ``L = L_cls + L_box + L_mask``, plus the RPN's two).

Each term is a plain function of predictions and targets and is returned as a sum and its divisor, so that the mean over
several processes is the sum of the sums divided by the sum of the counts. An image without objects gives finite terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn_kernels import roi_align
from medmaskrcnn_kernels.plain import plain

_FULL_BYTE = 255.0
_SMOOTH_L1_BETA = 1.0 / 9  # error at which the loss turns from quadratic to linear (Detectron's constant)


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
        total: Scalar, summed over samples.
        count: Divisor of the mean.
    """

    total: Tensor
    count: int

    @property
    def mean(self) -> Tensor:
        """The mean within one process, a scalar; 0 if nothing was sampled."""
        return self.total / max(1, self.count)


def rpn_losses(
    objectness: Tensor, is_object: Tensor, deltas: Tensor, wanted: Tensor, *, focal: float = 0.0
) -> tuple[Term, Term]:
    """Loss of the sampled anchors (Faster R-CNN, eq. 1).

    Args:
        objectness: ``(n,)`` logits of sampled anchors.
        is_object: ``(n,)`` 1 for positives, 0 for negatives.
        deltas: ``(p, 2S)`` predicted deltas of the positives.
        wanted: ``(p, 2S)`` their targets.
        focal: Exponent of the focal loss (Lin et al. 2017, eq. 4); 0 is plain cross-entropy.

    Returns:
        Objectness loss (mean over the sample) and box loss (sum over positives, divided by the sample size).
    """
    each = F.binary_cross_entropy_with_logits(objectness, is_object, reduction="none")
    return Term(_focused(each, focal), len(objectness)), Term(_box_distance(deltas, wanted), len(objectness))


def box_losses(
    logits: Tensor,
    classes: Tensor,
    deltas: Tensor,
    wanted: Tensor,
    *,
    focal: float = 0.0,
    unknown: Tensor | None = None,
) -> tuple[Term, Term]:
    """Loss of the sampled regions (Fast R-CNN, eq. 1).

    Args:
        logits: ``(R, K + 1)``.
        classes: ``(R,)`` int64, 0 is background.
        deltas: ``(p, 2S)`` predicted deltas of the positives, for their own class.
        wanted: ``(p, 2S)`` their targets.
        focal: As for :func:`rpn_losses`.
        unknown: ``(R, K)`` bool: classes that were not annotated in the region's image; see
            :func:`marginal_cross_entropy`. ``None``: all were.

    Returns:
        Classification loss (mean over regions) and box loss (sum over positives, divided by the number of regions).
    """
    if unknown is None:
        each = F.cross_entropy(logits, classes, reduction="none")
    else:
        each = marginal_cross_entropy(logits, classes, unknown)
    return Term(_focused(each, focal), len(logits)), Term(_box_distance(deltas, wanted), len(logits))


def marginal_cross_entropy(logits: Tensor, classes: Tensor, unknown: Tensor) -> Tensor:
    """Cross-entropy of partly labelled images: their background may hold objects of the classes that are unknown there.

    A background region costs ``-log(p_background + sum of p_unknown)`` (marginal loss, Shi et al. 2021, eq. 3), whose
    gradient never lowers the logit of an unknown class. A region of a known object costs ``-log(p_class)`` as always.

    Args:
        logits: ``(R, K + 1)``.
        classes: ``(R,)`` int64, 0 is background.
        unknown: ``(R, K)`` bool.

    Returns:
        ``(R,)``.
    """
    possible = F.one_hot(classes, logits.shape[1]).bool()
    possible[:, 1:] |= unknown & (classes == 0)[:, None]
    own = logits.masked_fill(~possible, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - own).clamp(min=0)  # rounding may leave a little less than 0


def _focused(cross_entropy: Tensor, exponent: float) -> Tensor:
    """Sum of ``-(1 - p)^exponent log(p)``, where ``-log(p)`` is each sample's cross-entropy."""
    if not exponent:
        return cross_entropy.sum()
    return ((-torch.expm1(-cross_entropy)) ** exponent * cross_entropy).sum()


def _box_distance(deltas: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(deltas, wanted, beta=_SMOOTH_L1_BETA, reduction="sum")


def mask_targets(masks: Tensor, boxes: Tensor, matched_idxs: Tensor, size: int) -> Tensor:
    """Training targets of the mask head for each region.

    Args:
        masks: ``(N, *spatial)`` occupancy of each object on the input's grid, 0..1, or 0..255 as uint8; fractional
            after resampling, so that a boundary between voxel centres is learnt at its true position.
        boxes: ``(p, 2S)`` regions in voxels.
        matched_idxs: ``(p,)`` int64, the object of each region.
        size: Bins per axis.

    Returns:
        ``(p, *(size,) * S)`` float32: occupancy of each bin, the mean of two linear samples along each axis.
    """
    masks, matched_idxs = plain(masks), plain(matched_idxs)
    used, index = matched_idxs.unique(return_inverse=True)  # only matched objects are converted to float
    occupancy = masks[used][:, None].float() / (_FULL_BYTE if masks.dtype == torch.uint8 else 1.0)
    return roi_align(occupancy, boxes, index, output_size=(size,) * (masks.ndim - 1), spatial_scale=1.0)[:, 0]


def mask_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Term:
    """Mean binary cross-entropy over positives and bins, own class only (Mask R-CNN, section 3).

    Args:
        logits: ``(p, *size)`` of the region's true class.
        targets: ``(p, *size)`` in 0..1.
        known: ``(p, *size)`` bool: bins that count, those outside ignored voxels; ``None`` for all. A positive without
            any counts for nothing.
    """
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if known is not None:
        bins = known.flatten(1).sum(1)
        means = (each * known).flatten(1).sum(1) / bins.clamp(min=1)
        return Term(means.sum(), int(torch.count_nonzero(bins)))
    return Term(each.flatten(1).mean(1).sum() if len(logits) else logits.sum(), len(logits))


def mask_dice_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Term:
    """Mean over positives of ``1 - 2 sum(p t) / (sum(p^2) + sum(t^2))`` (Milletari et al. 2016, V-Net, section 3).

    Args:
        logits: ``(p, *size)`` of the region's true class.
        targets: ``(p, *size)`` in 0..1.
        known: As for :func:`mask_loss`.
    """
    probability, truth, count = logits.sigmoid().flatten(1), targets.flatten(1), len(logits)
    if known is not None:  # what is not known is empty on both sides, which costs nothing
        probability, truth = probability * known.flatten(1), truth * known.flatten(1)
        count = int(torch.count_nonzero(known.flatten(1).any(1)))
    shared = 2 * (probability * truth).sum(1)
    total = (probability.square() + truth.square()).sum(1)
    return Term((1 - (shared + 1) / (total + 1)).sum(), count)  # + 1 bin: finite for an empty target

"""From the network's outputs to its loss terms: sampling of anchors and regions, and their targets.

Letters as in :mod:`medmaskrcnn.models.mask_rcnn`. Every random draw comes from one generator per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medmaskrcnn.models.box_head import BOX_CODER
from medmaskrcnn.models.losses import (
    Term,
    box_losses,
    mask_dice_loss,
    mask_loss,
    mask_targets,
    rpn_losses,
)
from medmaskrcnn.models.mask_head import select_class_logits
from medmaskrcnn.models.matching import match_atss, match_by_iou
from medmaskrcnn.models.rpn import RPN_CODER
from medmaskrcnn.models.sampling import sample
from medmaskrcnn.settings import LossSettings, RoISettings, RPNSettings

Randoms = Sequence[torch.Generator | None]


@dataclass  # not frozen: Lightning does not pass frozen ones to a DDP-wrapped network
class Targets:
    """The objects of one training image.

    Attributes:
        boxes: ``(N, 2S)`` float32 in voxels of the input tensor.
        labels: ``(N,)`` int64, 0 is the first class.
        masks: ``(N, *spatial)`` occupancy 0..1, or 0..255 as uint8; ``None`` for Faster R-CNN.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class SampledProposals:
    """Regions sampled for the heads' losses, per image, positives first.

    Attributes:
        boxes: Per image ``(n, 2S)`` in voxels.
        matched_idxs: Per image ``(n,)`` int64: the object to which a region is matched; negative for background.
        classes: ``(R,)`` int64 of all images, 0 is background.
    """

    boxes: list[Tensor]
    matched_idxs: list[Tensor]
    classes: Tensor

    def positives(self, most: int) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes ``(P, 2S)`` (voxels) and matched_idxs ``(P,)`` of at most ``most`` positives of each image."""
        boxes = [b[o >= 0][:most] for b, o in zip(self.boxes, self.matched_idxs, strict=True)]
        return boxes, [o[o >= 0][:most] for o in self.matched_idxs]


def rpn_terms(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Sequence[Targets],
    randoms: Randoms,
    *,
    per_cell: int,
    settings: RPNSettings,
    loss: LossSettings,
) -> dict[str, Term]:
    """The loss terms ``objectness`` and ``rpn_box``.

    Args:
        objectness: Per level ``(B, cells * A)`` logits.
        deltas: Per level ``(B, cells * A, 2S)``.
        anchors: Per level ``(cells * A, 2S)`` in voxels.
        targets: Objects of each image.
        randoms: Generator of each image.
        per_cell: Anchors per cell.
        settings: Matching and sampling.
        loss: Form of the classification's loss.
    """
    cells = [len(a) // per_cell for a in anchors]
    all_anchors, all_objectness, all_deltas = (
        torch.cat(list(anchors)),
        torch.cat(list(objectness), 1),
        torch.cat(list(deltas), 1),
    )
    logits, is_object, predicted, wanted = [], [], [], []
    for i, (target, random) in enumerate(zip(targets, randoms, strict=True)):
        if settings.matcher == "atss":
            matches = match_atss(target.boxes, all_anchors, cells_per_level=cells, per_cell=per_cell)
        else:
            low, high = settings.background_iou, settings.foreground_iou
            matches = match_by_iou(
                target.boxes, all_anchors, foreground=high, background=low, allow_low_quality_matches=True
            )
        positive, negative = sample(
            matches,
            count=settings.batch_per_image,
            positive_fraction=settings.positive_fraction,
            random=random,
            hardness=all_objectness[i].detach() if settings.negatives == "hard" else None,
        )
        logits.append(all_objectness[i, torch.cat([positive, negative])])
        is_object.append(torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).to(logits[-1].device))
        predicted.append(all_deltas[i, positive])
        wanted.append(RPN_CODER.encode(target.boxes[matches[positive]], all_anchors[positive]))
    terms = rpn_losses(
        torch.cat(logits), torch.cat(is_object), torch.cat(predicted), torch.cat(wanted), focal=loss.focal
    )
    return dict(zip(("objectness", "rpn_box"), terms, strict=True))


def select_training_samples(
    proposals: Sequence[Tensor], targets: Sequence[Targets], randoms: Randoms, settings: RoISettings
) -> SampledProposals:
    """Sample the proposals on which the heads are trained; ground-truth boxes are added to the proposals.

    Args:
        proposals: Per image ``(P, 2S)`` in voxels.
        targets: Objects of each image.
        randoms: Generator of each image.
        settings: Matching and sampling.
    """
    boxes, classes, matched_idxs = [], [], []
    for proposed, target, random in zip(proposals, targets, randoms, strict=True):
        candidates = torch.cat([proposed, target.boxes])
        limit = settings.foreground_iou
        matches = match_by_iou(
            target.boxes, candidates, foreground=limit, background=limit, allow_low_quality_matches=False
        )
        positive, negative = sample(
            matches, count=settings.batch_per_image, positive_fraction=settings.positive_fraction, random=random
        )
        chosen = torch.cat([positive, negative])
        boxes.append(candidates[chosen])
        matched_idxs.append(matches[chosen])
        classes.append(torch.cat([target.labels[matches[positive]] + 1, torch.zeros_like(negative)]))
    return SampledProposals(boxes, matched_idxs, torch.cat(classes))


def box_terms(
    logits: Tensor, deltas: Tensor, regions: SampledProposals, targets: Sequence[Targets], loss: LossSettings
) -> dict[str, Term]:
    """The loss terms ``classification`` and ``box``.

    Args:
        logits: ``(R, K + 1)``.
        deltas: ``(R, K + 1, 2S)``.
        regions: The sampled regions, the box head's input.
        targets: Objects of each image.
        loss: Form of the classification's loss.
    """
    positive = torch.nonzero(regions.classes > 0).flatten()
    wanted = [
        BOX_CODER.encode(target.boxes[owner[owner >= 0]], box[owner >= 0])
        for target, owner, box in zip(targets, regions.matched_idxs, regions.boxes, strict=True)
    ]
    own = deltas[positive, regions.classes[positive]]
    terms = box_losses(logits, regions.classes, own, torch.cat(wanted), focal=loss.focal)
    return dict(zip(("classification", "box"), terms, strict=True))


def mask_terms(
    logits: Tensor,
    boxes: Sequence[Tensor],
    matched_idxs: Sequence[Tensor],
    targets: Sequence[Targets],
    loss: LossSettings,
) -> dict[str, Term]:
    """The loss term ``mask`` and, if it has a weight, ``mask_dice``.

    Args:
        logits: ``(p, K, *size)`` of the positives.
        boxes: Per image ``(n, 2S)``: the positives in voxels.
        matched_idxs: Per image ``(n,)``: their objects.
        targets: Objects of each image.
        loss: Weights.

    Raises:
        ValueError: if the targets have no masks.
    """
    labels, truth = mask_truth(boxes, matched_idxs, targets, logits.shape[-1])
    own = select_class_logits(logits, labels)
    terms = {"mask": mask_loss(own, truth)}
    if loss.mask_dice:
        terms["mask_dice"] = mask_dice_loss(own, truth)
    return terms


def mask_truth(
    boxes: Sequence[Tensor], matched_idxs: Sequence[Tensor], targets: Sequence[Targets], size: int
) -> tuple[Tensor, Tensor]:
    """Targets of the mask head in the positives: their classes ``(p,)`` and their masks ``(p, *(size,) * S)``.

    Args:
        boxes: As for :func:`mask_terms`.
        matched_idxs: As for :func:`mask_terms`.
        targets: As for :func:`mask_terms`.
        size: Bins per axis of a predicted mask.

    Raises:
        ValueError: if the targets have no masks.
    """
    labels = torch.cat([target.labels[owner] for target, owner in zip(targets, matched_idxs, strict=True)])
    wanted = []
    for target, box, owner in zip(targets, boxes, matched_idxs, strict=True):
        if target.masks is None:
            raise ValueError("a model with a mask head needs masks in its targets")
        wanted.append(mask_targets(target.masks, box, owner, size))
    return labels, torch.cat(wanted)

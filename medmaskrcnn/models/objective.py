"""From the network's outputs to its loss terms: sampling of anchors and regions, and their targets.

Letters as in :mod:`medmaskrcnn.models.mask_rcnn`; ``L`` objectness logits per anchor, one or one per class. Every
random draw comes from one generator per image. How unknown classes and ignored objects count: ``docs/decisions/021``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from medmaskrcnn.models.box_head import BOX_CODER
from medmaskrcnn.models.ignored import set_ignored_aside
from medmaskrcnn.models.losses import (
    Term,
    box_losses,
    mask_dice_loss,
    mask_loss,
    mask_targets,
    rpn_losses,
)
from medmaskrcnn.models.mask_head import select_class_logits
from medmaskrcnn.models.matching import BACKGROUND, IGNORED, match_atss, match_by_iou
from medmaskrcnn.models.rpn import RPN_CODER, largest_logit
from medmaskrcnn.models.sampling import sample
from medmaskrcnn.settings import LossSettings, RoISettings, RPNSettings
from medmaskrcnn_kernels.plain import plain

Randoms = Sequence[torch.Generator | None]

_HALF_BYTE = 128  # occupancy of a voxel, 0..255, from which it is ignored


@dataclass  # not frozen: Lightning does not pass frozen ones to a DDP-wrapped network
class Targets:
    """The objects of one training image. Subclasses of tensors become plain ones.

    Attributes:
        boxes: ``(N, 2S)`` float32 in voxels of the input tensor.
        labels: ``(N,)`` int64, 0 is the first class.
        masks: ``(N, *spatial)`` occupancy 0..1, or 0..255 as uint8; ``None`` for Faster R-CNN.
        annotated: ``(K,)`` bool: classes that were annotated in the image. The others are unknown, neither object nor
            background. ``None``: all were.
        ignored_boxes: ``(I, 2S)`` boxes of ignored objects, neither to be found nor false when found; ``None``: none.
        ignored_mask: ``(*spatial)`` their voxels together, as ``masks``; ``None`` without any, or for Faster R-CNN.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    annotated: Tensor | None = None
    ignored_boxes: Tensor | None = None
    ignored_mask: Tensor | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            if isinstance(value := getattr(self, one.name), Tensor):
                setattr(self, one.name, plain(value))

    @property
    def unknown(self) -> Tensor | None:
        """``(K,)`` bool: classes that were not annotated; ``None`` if all were."""
        return None if self.annotated is None or bool(self.annotated.all()) else ~self.annotated

    @property
    def ignored_voxels(self) -> Tensor | None:
        """``(*spatial)`` bool: voxels at least half of which is ignored; ``None`` without a mask."""
        mask = self.ignored_mask
        return None if mask is None else mask >= (_HALF_BYTE if mask.dtype == torch.uint8 else 0.5)

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        moved: dict[str, Any] = {name: None if v is None else v.to(device) for name, v in vars(self).items()}
        return Targets(**moved)


@dataclass(frozen=True)
class SampledProposals:
    """Regions sampled for the heads' losses, per image, positives first.

    Attributes:
        boxes: Per image ``(n, 2S)`` in voxels.
        matched_idxs: Per image ``(n,)`` int64: the object to which a region is matched; negative for background.
        classes: ``(R,)`` int64 of all images, 0 is background.
        unknown: ``(R, K)`` bool: classes that were not annotated in a region's image; ``None`` if all were in all.
    """

    boxes: list[Tensor]
    matched_idxs: list[Tensor]
    classes: Tensor
    unknown: Tensor | None = None

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

    An anchor with an object raises the logit of the object's class; one without lowers the largest logit of the classes
    that were annotated in its image. If all classes share one logit, images with unknown classes have no negatives.

    Args:
        objectness: Per level ``(B, cells * A, L)`` logits.
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
    match = partial(_match_anchors, anchors=all_anchors, cells=cells, per_cell=per_cell, settings=settings)
    per_class = all_objectness.shape[-1] > 1
    logits, is_object, predicted, wanted = [], [], [], []
    for i, (target, random) in enumerate(zip(targets, randoms, strict=True)):
        matches = _matches(all_anchors, target, match, needs_complete=not per_class)
        unknown = target.unknown if per_class else None
        of_annotated = all_objectness[i] if unknown is None or unknown.all() else all_objectness[i][:, ~unknown]
        seen = largest_logit(of_annotated)
        positive, negative = sample(
            matches,
            count=settings.batch_per_image,
            positive_fraction=settings.positive_fraction,
            random=random,
            hardness=seen.detach() if settings.negatives == "hard" else None,
        )
        if per_class:
            own = all_objectness[i, positive, target.labels[matches[positive]]]
            logits.append(torch.cat([own, seen[negative]]))
        else:
            logits.append(seen[torch.cat([positive, negative])])
        is_object.append(torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).to(logits[-1].device))
        predicted.append(all_deltas[i, positive])
        wanted.append(RPN_CODER.encode(target.boxes[matches[positive]], all_anchors[positive]))
    terms = rpn_losses(
        torch.cat(logits), torch.cat(is_object), torch.cat(predicted), torch.cat(wanted), focal=loss.focal
    )
    return dict(zip(("objectness", "rpn_box"), terms, strict=True))


def _match_anchors(
    objects: Tensor, anchors: Tensor, cells: Sequence[int], per_cell: int, settings: RPNSettings
) -> Tensor:
    if settings.matcher == "atss":
        return match_atss(objects, anchors, cells_per_level=cells, per_cell=per_cell)
    low, high = settings.background_iou, settings.foreground_iou
    return match_by_iou(objects, anchors, foreground=high, background=low, allow_low_quality_matches=True)


def _matches(
    boxes: Tensor, target: Targets, match: Callable[[Tensor], Tensor], *, needs_complete: bool = False
) -> Tensor:
    """Matches ``(M,)`` of anchors or proposals with the objects of an image, in which ignored objects are set aside.

    ``needs_complete``: background can be told only where all classes were annotated; otherwise one is enough.
    """
    matches = match(target.boxes)
    if target.unknown is not None and (needs_complete or bool(target.unknown.all())):
        matches = torch.where(matches == BACKGROUND, IGNORED, matches)
    if target.ignored_boxes is not None:
        matches = set_ignored_aside(matches, boxes, target.ignored_boxes, target.ignored_voxels, match)
    return matches


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
        match = partial(
            match_by_iou,
            boxes=candidates,
            foreground=settings.foreground_iou,
            background=settings.foreground_iou,
            allow_low_quality_matches=False,
        )
        matches = _matches(candidates, target, match)
        positive, negative = sample(
            matches, count=settings.batch_per_image, positive_fraction=settings.positive_fraction, random=random
        )
        chosen = torch.cat([positive, negative])
        boxes.append(candidates[chosen])
        matched_idxs.append(matches[chosen])
        classes.append(torch.cat([target.labels[matches[positive]] + 1, torch.zeros_like(negative)]))
    return SampledProposals(boxes, matched_idxs, torch.cat(classes), _unknown(targets, [len(b) for b in boxes]))


def _unknown(targets: Sequence[Targets], counts: Sequence[int]) -> Tensor | None:
    """``(R, K)`` classes that are unknown to each of the images' regions."""
    partly = [target.unknown for target in targets]
    some = next((one for one in partly if one is not None), None)
    if some is None:
        return None
    rows = [torch.zeros_like(some) if one is None else one for one in partly]
    return torch.cat([row.expand(n, -1) for row, n in zip(rows, counts, strict=True)])


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
    terms = box_losses(logits, regions.classes, own, torch.cat(wanted), focal=loss.focal, unknown=regions.unknown)
    return dict(zip(("classification", "box"), terms, strict=True))


def mask_terms(
    logits: Tensor,
    boxes: Sequence[Tensor],
    matched_idxs: Sequence[Tensor],
    targets: Sequence[Targets],
    loss: LossSettings,
    prior: Tensor | None = None,
) -> dict[str, Term]:
    """The loss term ``mask`` and, if it has a weight, ``mask_dice``.

    Args:
        logits: ``(p, K, *size)`` of the positives.
        boxes: Per image ``(n, 2S)``: the positives in voxels.
        matched_idxs: Per image ``(n,)``: their objects.
        targets: Objects of each image.
        loss: Weights.
        prior: ``(p, *size)`` logits of the semantic head, which are added.

    Raises:
        ValueError: if the targets have no masks.
    """
    labels, truth = mask_truth(boxes, matched_idxs, targets, logits.shape[-1])
    own, known = select_class_logits(logits, labels), mask_known(boxes, targets, logits.shape[-1])
    own = own if prior is None else own + prior
    terms = {"mask": mask_loss(own, truth, known)}
    if loss.mask_dice:
        terms["mask_dice"] = mask_dice_loss(own, truth, known)
    return terms


def mask_known(boxes: Sequence[Tensor], targets: Sequence[Targets], size: int) -> Tensor | None:
    """``(p, *(size,) * S)`` bool: bins of the positives' masks less than half ignored; ``None`` if nothing is ignored.

    Args:
        boxes: As for :func:`mask_terms`.
        targets: As for :func:`mask_terms`.
        size: Bins per axis of a predicted mask.
    """
    if all(target.ignored_mask is None for target in targets):
        return None
    parts = []
    for target, box in zip(targets, boxes, strict=True):
        if target.ignored_mask is None:
            parts.append(torch.ones((len(box), *(size,) * (box.shape[1] // 2)), dtype=torch.bool, device=box.device))
        else:
            whole = torch.zeros(len(box), dtype=torch.int64, device=box.device)
            parts.append(mask_targets(target.ignored_mask[None], box, whole, size) < 0.5)
    return torch.cat(parts)


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

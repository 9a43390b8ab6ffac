"""Networks that are built for the ablations alone: one map of stride 32 (``c5``), and masks by a softmax over classes.

Settings and files of such models are those of the library, which reads them but does not build their networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import model_sha256, read_model
from medmaskrcnn.models.backbone import build_backbone
from medmaskrcnn.models.build import add_heads
from medmaskrcnn.models.fpn import FPN, Pyramid, build_pyramid
from medmaskrcnn.models.losses import Term, mask_dice_loss
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.objective import Targets, mask_truth
from medmaskrcnn.models.runtime.device import choose_device
from medmaskrcnn.models.runtime.precision import choose_precision
from medmaskrcnn.settings import LossSettings, ModelSettings


class SingleMap(Pyramid):
    """One map, made of C5 by the same two convolutions as a level of the pyramid."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)`` to the map ``(B, channels, *map)``."""
        assert self.fpn is not None
        return list(self.fpn(self.backbone(images)[-1:]))


def softmax_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-odds ``(R, *size)`` of each region's class against the other classes and the background, whose logit is 0.

    Their sigmoid is the class's softmax probability.

    Args:
        logits: ``(R, K, *size)``.
        labels: ``(R,)`` int64, 0 is the first class.
    """
    rows = torch.arange(len(labels), device=labels.device)
    others = logits.clone()
    others[rows, labels] = 0.0  # in place of the own class: the background
    return logits[rows, labels] - others.logsumexp(dim=1)


def softmax_mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Term:
    """Cross-entropy of a softmax over all classes and the background, whose logit is 0 (Mask R-CNN, table 2b).

    Args:
        logits: ``(p, K, *size)``.
        labels: ``(p,)`` int64, the region's true class.
        targets: ``(p, *size)`` in 0..1: the share of a bin that is of the true class; the rest is background.
    """
    with_background = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).log_softmax(dim=1)
    own = with_background[torch.arange(len(labels), device=labels.device), labels + 1]
    each = -(targets * own + (1 - targets) * with_background[:, 0])
    return Term(each.flatten(1).mean(1).sum() if len(logits) else logits.sum(), len(logits))


def softmax_mask_terms(
    logits: Tensor,
    boxes: Sequence[Tensor],
    owners: Sequence[Tensor],
    targets: Sequence[Targets],
    loss: LossSettings,
) -> dict[str, Term]:
    """As :func:`medmaskrcnn.models.objective.mask_terms`, with classes that compete for voxels."""
    labels, truth = mask_truth(boxes, owners, targets, logits.shape[-1])
    terms = {"mask": softmax_mask_loss(logits, labels, truth)}
    if loss.mask_dice:
        terms["mask_dice"] = mask_dice_loss(softmax_log_odds(logits, labels), truth)
    return terms


class SoftmaxMaskRCNN(MaskRCNN):
    """A Mask R-CNN whose classes and background compete for voxels."""

    mask_terms = staticmethod(softmax_mask_terms)
    select_class_logits = staticmethod(softmax_log_odds)


def build_ablation(settings: ModelSettings) -> MaskRCNN:
    """As :func:`medmaskrcnn.models.build.build_model`, and the networks that it refuses."""
    dims, sizes = settings.spatial_dims, settings.backbone
    backbone = build_backbone(sizes, spatial_dims=dims, in_channels=settings.input_channels)
    if sizes.pyramid == "c5":
        fpn = FPN(backbone.out_channels[-1:], sizes.fpn_channels, spatial_dims=dims)
        pyramid: Pyramid = SingleMap(backbone, fpn, sizes.strides[-1:], sizes.fpn_channels)
    else:
        pyramid = build_pyramid(backbone, sizes, spatial_dims=dims)
    return add_heads(pyramid, settings, SoftmaxMaskRCNN if settings.roi.mask_activation == "softmax" else MaskRCNN)


def load_ablation(path: Path) -> LoadedModel:
    """A model file, loaded as :func:`medmaskrcnn.load_model` does with its defaults and torch."""
    device = choose_device("auto")
    network, settings = read_model(path, build=build_ablation)
    ready = network.run_in(choose_precision("auto", device)).to(device)
    return LoadedModel(ready, settings, model_sha256(path), device)

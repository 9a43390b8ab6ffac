"""What every network must do, whatever it is made of: learn with all its weights, and detect."""

from __future__ import annotations

from collections.abc import Callable

import torch

from medmaskrcnn.models.mask_rcnn import MaskRCNN, Targets
from medmaskrcnn.settings import ModelSettings

Tiny = Callable[..., ModelSettings]
SHAPE = {2: (64, 96), 3: (16, 64, 64)}
"""Of the images, by number of axes."""
TERMS = ("objectness", "rpn_box", "classification", "box", "mask")


def variant(tiny_model: Tiny, dims: int, pyramid: str, **roi: object) -> ModelSettings:
    """The settings of ``tiny_model`` with another pyramid and other values of ``roi``."""
    plain = tiny_model(dims)
    backbone = plain.backbone.model_copy(update={"pyramid": pyramid})
    return tiny_model(dims, backbone=backbone, roi=plain.roi.model_copy(update=roi))


def objects(dims: int) -> Targets:
    """Two objects in an image of :data:`SHAPE`."""
    boxes = torch.tensor([[4.0, 8, 8, 12, 28, 24], [2.0, 32, 36, 14, 52, 60]])
    boxes = boxes if dims == 3 else boxes[:, [1, 2, 4, 5]]
    masks = torch.zeros((2, *SHAPE[dims]))
    for mask, box in zip(masks, boxes.int().tolist(), strict=True):
        mask[tuple(slice(a, b) for a, b in zip(box[:dims], box[dims:], strict=True))] = 1
    return Targets(boxes, torch.tensor([0, 1]), masks)


def check_learns_and_detects(network: MaskRCNN, dims: int) -> None:
    """Every weight of a network that :func:`variant` describes gets a gradient, and nine objects are found."""
    terms = network.losses(torch.randn(2, 1, *SHAPE[dims]), [objects(dims)] * 2)
    assert tuple(terms) == TERMS
    assert all(term.isfinite() and term > 0 for term in terms.values())
    sum(terms.values()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0 or "bn" in name, f"{name} learns nothing"
    for found in network.eval().detect(torch.randn(2, 1, *SHAPE[dims])):
        assert found.boxes.shape == (9, 2 * dims)
        assert found.mask_probabilities is not None
        assert found.mask_probabilities.shape == (9, *(network.settings.mask_bins,) * dims)
        assert ((found.mask_probabilities >= 0) & (found.mask_probabilities <= 1)).all()

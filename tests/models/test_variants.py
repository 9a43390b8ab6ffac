"""The networks that Mask R-CNN was measured against: one map in place of a pyramid, RoIPool, masks by softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_pool as torchvision_roi_pool

from medmaskrcnn.models.box_head import MeanBoxHead
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.losses import competing_mask_loss, mask_loss
from medmaskrcnn.models.mask_head import select_class_logits
from medmaskrcnn.models.mask_rcnn import Targets
from medmaskrcnn.models.roi_pooler import pool_rois
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, LossSettings, ModelSettings, RoISettings
from medmaskrcnn.training.transfer.apply import freeze, transfer

Tiny = Callable[..., ModelSettings]
SHAPE = {2: (64, 96), 3: (16, 64, 64)}
STRIDES = {2: ((4, 4), (8, 8), (16, 16), (32, 32)), 3: ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))}
TERMS = ("objectness", "rpn_box", "classification", "box", "mask")
ROUNDING = 1e-5


def variant(tiny_model: Tiny, dims: int, pyramid: str, **roi: object) -> ModelSettings:
    plain = tiny_model(dims)
    backbone = plain.backbone.model_copy(update={"pyramid": pyramid})
    return tiny_model(dims, backbone=backbone, roi=plain.roi.model_copy(update=roi))


def objects(dims: int) -> Targets:
    boxes = torch.tensor([[4.0, 8, 8, 12, 28, 24], [2.0, 32, 36, 14, 52, 60]])
    boxes = boxes if dims == 3 else boxes[:, [1, 2, 4, 5]]
    masks = torch.zeros((2, *SHAPE[dims]))
    for mask, box in zip(masks, boxes.int().tolist(), strict=True):
        mask[tuple(slice(a, b) for a, b in zip(box[:dims], box[dims:], strict=True))] = 1
    return Targets(boxes, torch.tensor([0, 1]), masks)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("pyramid", "pooler", "activation"),
    [
        ("c4", "align", "sigmoid"),
        ("c4", "pool", "softmax"),
        ("c5", "align", "softmax"),
        ("c5", "pool", "sigmoid"),
        ("fpn", "pool", "softmax"),
    ],
)
def test_variants_learn_and_detect(tiny_model: Tiny, dims: int, pyramid: str, pooler: str, activation: str) -> None:
    settings = variant(tiny_model, dims, pyramid, pooler=pooler, mask_activation=activation)
    network = build_model(settings)
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
        assert found.mask_probabilities.shape == (9, *(settings.mask_bins,) * dims)
        assert ((found.mask_probabilities >= 0) & (found.mask_probabilities <= 1)).all()


@pytest.mark.parametrize("pyramid", ["c4", "c5"])
def test_without_masks(tiny_model: Tiny, pyramid: str) -> None:
    settings = variant(tiny_model, 2, pyramid).model_copy(update={"with_masks": False})
    network = build_model(settings)
    assert tuple(network.losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)])) == TERMS[:-1]
    (found,) = network.detect(torch.randn(1, 1, *SHAPE[2]))
    assert found.mask_probabilities is None


@pytest.mark.parametrize(("pyramid", "stride"), [("c4", (4, 16, 16)), ("c5", (8, 32, 32))])
def test_all_anchors_lie_on_the_one_map(tiny_model: Tiny, pyramid: str, stride: tuple[int, ...]) -> None:
    settings = variant(tiny_model, 3, pyramid)
    network = build_model(settings)
    images = torch.randn(1, 1, *SHAPE[3])
    made: dict[str, Any] = {}
    network.eval().detect(images, watch=made.__setitem__)
    levels, (objectness, _, anchors) = made["pyramid"], made["rpn"]
    cells = [n // s for n, s in zip(SHAPE[3], stride, strict=True)]
    assert [tuple(level.shape[2:]) for level in levels] == [tuple(cells)]
    assert settings.anchors_per_cell == 15
    (boxes,) = anchors
    assert objectness[0].shape[1] == len(boxes) == 15 * cells[0] * cells[1] * cells[2]
    first = boxes[:15]
    centre = (first[:, :3] + first[:, 3:]) / 2
    assert torch.equal(centre, torch.tensor([[s / 2 for s in stride]]).expand(15, 3))
    assert torch.allclose((first[:, 3] - first[:, 0])[::3], torch.tensor([3.0, 5, 8, 12, 16]))


@torch.no_grad()
def test_in_c4_the_last_stage_runs_on_regions(tiny_model: Tiny) -> None:
    settings = variant(tiny_model, 2, "c4")
    network = build_model(settings).eval()
    assert isinstance(network.box_head, MeanBoxHead) and network.pyramid.fpn is None
    made: dict[str, Any] = {}
    network.detect(torch.randn(1, 1, *SHAPE[2]), watch=made.__setitem__)
    regions = pool_rois(made["pyramid"], made["proposals"], strides=[(16, 16)], bins=4, roi=settings.roi)
    features = network.pyramid.backbone.resnet.layer4(regions)
    assert features.shape == (len(regions), 16, 2, 2) and len(regions) > 1
    wanted = F.linear(features.mean(dim=(2, 3)), network.box_head.classes.weight, network.box_head.classes.bias)
    torch.testing.assert_close(made["scores"][0], wanted)
    assert settings.mask_bins == 4
    assert network.mask_head is not None and network.mask_head(features).shape == (len(regions), 2, 4, 4)


@pytest.mark.parametrize("stride", [16, 32])
def test_pooling_is_torchvisions(stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    level = torch.randn((2, 3, 128 // stride * 2, 128 // stride * 2), generator=generator, requires_grad=True)
    low = torch.rand((9, 2), generator=generator) * 120
    boxes = torch.cat([low, low + torch.rand((9, 2), generator=generator) * 120], dim=1)
    ours = pool_rois(
        [level], [boxes[:4], boxes[4:]], strides=[(stride, stride)], bins=7, roi=RoISettings(pooler="pool")
    )
    index = torch.tensor([0.0] * 4 + [1.0] * 5)[:, None]
    theirs = torchvision_roi_pool(level, torch.cat([index, boxes[:, [1, 0, 3, 2]]], dim=1), 7, 1 / stride)
    assert torch.equal(ours, theirs)
    weight = torch.randn(ours.shape, generator=generator)
    gradients = [torch.autograd.grad((values * weight).sum(), level)[0] for values in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize("pooler", ["align", "pool"])
def test_each_box_is_read_from_its_own_level(pooler: str) -> None:
    """Maps that hold their own number: what comes back is the level."""
    maps = [torch.full((2, 1, n, n), float(level)) for level, n in ((2, 64), (3, 32), (4, 16), (5, 8))]
    edges = [20.0, 200, 40, 120, 60, 20]
    boxes = torch.tensor([[10.0, 10, 10 + e, 10 + e] for e in edges])
    roi = RoISettings(pooler=pooler, canonical_size=112)
    strides = [(4, 4), (8, 8), (16, 16), (32, 32)]
    read = pool_rois(maps, [boxes[:2], boxes[2:]], strides=strides, bins=2, roi=roi)
    # 4 + floor(log2(edge / 112)), within 2..5
    assert read[:, 0, 0, 0].tolist() == [2, 4, 2, 4, 3, 2]


def test_competing_classes_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0]]).view(1, 2, 1)  # one bin, two classes, background 0
    e = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    odds = select_class_logits(logits, torch.tensor([1]), "softmax")
    torch.testing.assert_close(odds.sigmoid().flatten(), e[2:3])
    loss = competing_mask_loss(logits, torch.tensor([1]), torch.tensor([[0.75]]))
    torch.testing.assert_close(loss.total, -(0.75 * e[2].log() + 0.25 * e[0].log()))
    assert loss.count == 1
    assert select_class_logits(logits, torch.tensor([0]), "sigmoid").item() == 1.0


def test_with_one_class_there_is_nothing_to_compete_with() -> None:
    logits, truth = torch.randn(5, 1, 6, 6), torch.rand(5, 6, 6)
    labels = torch.zeros(5, dtype=torch.int64)
    one, other = (select_class_logits(logits, labels, kind) for kind in ("sigmoid", "softmax"))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(competing_mask_loss(logits, labels, truth).total, mask_loss(one, truth).total)


def test_competing_masks_without_regions_and_with_dice(tiny_model: Tiny) -> None:
    assert (
        competing_mask_loss(torch.zeros(0, 2, 4, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, 4)).total == 0
    )
    settings = variant(tiny_model, 2, "fpn", mask_activation="softmax").model_copy(
        update={"loss": LossSettings(mask_dice=1.0)}
    )
    terms = build_model(settings).losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)])
    assert 0 < terms["mask_dice"].item() < 1


def test_settings_of_variants(tiny_model: Tiny) -> None:
    one = AnchorSettings(sizes=((16, 16),))
    with pytest.raises(ValidationError, match=r"one entry per level P2\.\.P6"):
        tiny_model(2, anchors=one)
    c5 = tiny_model(2).backbone.model_copy(update={"pyramid": "c5"})
    assert tiny_model(2, anchors=one, backbone=c5).anchors_per_cell == 3
    c4 = c5.model_copy(update={"pyramid": "c4"})
    with pytest.raises(ValidationError, match="box_size and mask_size must be even"):
        tiny_model(2, backbone=c4, roi=RoISettings(box_size=7))


def stages(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if ".resnet." in name}


def test_weights_go_from_a_pyramid_to_c4(tiny_model: Tiny) -> None:
    fpn = build_model(tiny_model(2, backbone=BackboneSettings(name="resnet10", fpn_channels=8)))
    c4 = build_model(tiny_model(2, backbone=BackboneSettings(name="resnet10", fpn_channels=8, pyramid="c4")))
    report = transfer(c4, fpn)
    assert all(torch.equal(value, stages(fpn)[name]) for name, value in stages(c4).items())
    assert all(name in report.taken for name in stages(c4))
    with pytest.raises(ValueError, match="cannot freeze fpn; of this model can be frozen: stem, stage1"):
        freeze(c4, ["fpn"])

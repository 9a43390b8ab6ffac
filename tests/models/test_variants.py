"""The networks that Mask R-CNN grew out of: one map in place of a pyramid, RoIPool."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_checks import SHAPE, TERMS, Tiny, check_learns_and_detects, objects, variant
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_pool as torchvision_roi_pool

from medmaskrcnn.models.box_head import MeanBoxHead
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.roi_pooler import pool_rois
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, RoISettings
from medmaskrcnn.training.transfer.apply import freeze, transfer

ROUNDING = 1e-5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("pyramid", "pooler"), [("c4", "align"), ("c4", "pool"), ("fpn", "pool")])
def test_variants_learn_and_detect(tiny_model: Tiny, dims: int, pyramid: str, pooler: str) -> None:
    check_learns_and_detects(build_model(variant(tiny_model, dims, pyramid, pooler=pooler)), dims)


def test_without_masks(tiny_model: Tiny) -> None:
    settings = variant(tiny_model, 2, "c4").model_copy(update={"with_masks": False})
    network = build_model(settings)
    assert tuple(network.losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)])) == TERMS[:-1]
    (found,) = network.detect(torch.randn(1, 1, *SHAPE[2]))
    assert found.mask_probabilities is None


def test_all_anchors_lie_on_the_one_map(tiny_model: Tiny) -> None:
    settings, stride = variant(tiny_model, 3, "c4"), (4, 16, 16)
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


def test_settings_of_variants(tiny_model: Tiny) -> None:
    one = AnchorSettings(sizes=((16, 16),))
    with pytest.raises(ValidationError, match=r"one entry per level P2\.\.P6"):
        tiny_model(2, anchors=one)
    c4 = tiny_model(2).backbone.model_copy(update={"pyramid": "c4"})
    assert tiny_model(2, anchors=one, backbone=c4).anchors_per_cell == 3
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

"""Pruning takes the channels that matter least, and what is left is a network that its settings describe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmaskrcnn.compression.prune import prune
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
)

pytestmark = pytest.mark.needs(extra="prune")

STRIDES = {2: ((4, 4), (8, 8), (16, 16), (32, 32)), 3: ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))}


def settings_of(name: str, width: int, *, dims: int = 2, norm: str = "group", masks: bool = True) -> ModelSettings:
    stages = (width, 2 * width, 2 * width, 2 * width)
    light = name == "light"
    return ModelSettings(
        spatial_dims=dims,
        class_names=("liver", "tumour"),
        with_masks=masks,
        backbone=BackboneSettings(
            name=name, norm=norm, strides=STRIDES[dims], fpn_channels=width,
            **({"light_channels": stages} if light else {"channels": stages}),
        ),
        anchors=AnchorSettings(sizes=tuple((s,) * dims for s in (8, 16, 32, 64, 128))),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=2 * width, mask_channels=width, mask_convs=2),
    )  # fmt: skip


def made(settings: ModelSettings, seed: int = 0) -> MaskRCNN:
    torch.manual_seed(seed)
    network = build_model(settings).eval()
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))  # no bias and no constant of a norm is zero
    return network


def widened(small: MaskRCNN, settings: ModelSettings) -> MaskRCNN:
    """A wider network that computes the same: the further channels are zero, and nobody listens to them."""
    wide = build_model(settings).eval()
    state = wide.state_dict()
    with torch.no_grad():
        for name, value in small.state_dict().items():
            state[name].zero_()
            state[name][tuple(slice(0, n) for n in value.shape)] = value
    return wide


@pytest.mark.parametrize(
    ("name", "dims", "norm"),
    [("light", 2, "group"), ("light", 3, "group"), ("light", 2, "frozen_batch"), ("resnet18", 2, "group"),
     ("resnet50", 2, "group"), ("resnet50", 2, "frozen_batch")],
)  # fmt: skip
def test_channels_that_do_nothing_are_those_that_go(name: str, dims: int, norm: str) -> None:
    small = made(settings_of(name, 16, dims=dims, norm=norm))
    pruned = prune(widened(small, settings_of(name, 32, dims=dims, norm=norm)), 0.5)
    assert pruned.settings == small.settings
    for key, value in small.state_dict().items():
        assert torch.equal(pruned.state_dict()[key], value), key


def test_the_channels_that_weigh_least_go_wherever_they_lie() -> None:
    network = made(settings_of("light", 32))
    loud = torch.arange(32) % 2 == 1
    with torch.no_grad():
        for layer in (network.mask_head.convs[0].weight, network.box_head.fc1.weight[:32]):
            layer[~loud[: len(layer)]] *= 1e-3
        network.mask_head.convs[0].bias.zero_()
        network.mask_head.convs[1].weight[:, ~loud] *= 1e-3
    before = network.mask_head.convs[0].weight.detach().clone()
    pruned = prune(network, 0.5)
    assert pruned.settings.roi.mask_channels == 16
    kept = {float(v) for v in before[loud].flatten()}
    assert {float(v) for v in pruned.mask_head.convs[0].weight.detach().flatten()} <= kept
    assert network.settings.roi.mask_channels == 32  # the original stays as it was


@pytest.mark.parametrize("masks", [True, False])
def test_a_pruned_network_is_found_again_in_its_file(tmp_path: Path, masks: bool) -> None:
    pruned = prune(made(settings_of("light", 32, masks=masks)), 0.25)
    assert pruned.settings.backbone.light_channels == (24, 48, 48, 48)
    assert (pruned.settings.backbone.fpn_channels, pruned.settings.roi.box_hidden) == (24, 48)
    settings = ModelFileSettings(
        card=ModelCard(name="tiny"), model=pruned.settings, preprocess=PreprocessSettings(percentiles=(1, 99))
    )
    save_model(pruned, settings, tmp_path / "tiny.safetensors")
    read, found = read_model(tmp_path / "tiny.safetensors")
    assert found == settings
    images = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(read.pyramid(images), pruned.pyramid(images), strict=True):
            torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)  # weights are kept in half precision


def test_what_cannot_be_pruned_is_refused() -> None:
    settings = settings_of("light", 16)
    flat = settings.model_copy(
        update={
            "backbone": settings.backbone.model_copy(update={"pyramid": "c4"}),
            "anchors": AnchorSettings(sizes=((8, 8),)),
        }
    )
    with pytest.raises(MedMaskRCNNError, match="feature pyramid"):
        prune(build_model(flat), 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        prune(made(settings), 1.0)
    with pytest.raises(ValueError, match="too small"):
        prune(made(settings), 0.01)


@pytest.mark.parametrize("share", [0.3, 0.45, 0.9])
def test_any_share_leaves_a_bottleneck_that_settings_describe(share: float) -> None:
    pruned = prune(made(settings_of("resnet50", 40)), share)
    first = pruned.settings.backbone.channels[0]
    assert first == {0.3: 32, 0.45: 24, 0.9: 16}[share]
    assert pruned.pyramid.backbone.out_channels[0] == 4 * first


def test_sixteen_channels_stay() -> None:
    pruned = prune(made(settings_of("light", 32)), 0.9)
    assert pruned.settings.backbone.light_channels == (16, 16, 16, 16)
    assert (pruned.settings.backbone.fpn_channels, pruned.settings.roi.mask_channels) == (16, 16)


def test_training_goes_on_from_a_pruned_network() -> None:
    from medmaskrcnn.models.objective import Targets

    pruned = prune(made(settings_of("light", 32)), 0.5).train()
    masks = torch.zeros((1, 64, 64), dtype=torch.uint8)
    masks[:, 10:40, 12:44] = 255
    target = Targets(torch.tensor([[10.0, 12.0, 40.0, 44.0]]), torch.tensor([1]), masks)
    losses = pruned.losses(torch.rand(1, 1, 64, 64), [target], seeds=[0])
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pruned.parameters())

"""The built-in backbone that is no ResNet: maps of the right size, no statistics over the batch, learns, is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock as MonaiBlock

from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.models.backbone import build_backbone, register_backbone, stage_sizes
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mednext import BLOCKS, EXPANSION, MedNeXtBackbone, MedNeXtBlock
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import BackboneSettings, ModelFileSettings, ModelSettings

Tiny = Callable[..., ModelSettings]

WIDTHS = (4, 8, 8, 12)
STRIDES = (
    ((4, 4), (8, 8), (16, 16), (32, 32)),
    ((2, 2), (4, 4), (8, 8), (16, 16)),
    ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32)),
    ((1, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16)),
    ((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)),
)


def mednext(settings: ModelSettings) -> ModelSettings:
    backbone = settings.backbone.model_copy(update={"name": "mednext", "light_channels": WIDTHS})
    return settings.model_copy(update={"backbone": backbone})


@pytest.mark.parametrize("strides", STRIDES)
def test_maps_are_smaller_by_their_strides(strides: tuple[tuple[int, ...], ...]) -> None:
    settings = BackboneSettings(name="mednext", light_channels=WIDTHS, strides=strides)
    dims = len(strides[0])
    network = build_backbone(settings, spatial_dims=dims, in_channels=2)
    shape = (64, 64) if dims == 2 else (8, 32, 64)
    maps = network(torch.randn(1, 2, *shape))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, *(n // s for n, s in zip(shape, stride, strict=True)))
        for width, stride in zip(WIDTHS, strides, strict=True)
    ]
    assert stage_sizes(settings) == tuple(zip(BLOCKS, WIDTHS, strict=True))


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    settings = BackboneSettings(name="mednext", light_channels=WIDTHS)
    network = build_backbone(settings, spatial_dims=2, in_channels=1).train()
    images = torch.randn(3, 1, 64, 64)
    for together, alone in zip(network(images), network(images[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_and_is_saved(dims: int, tiny_model: Tiny, tiny_file: Callable[..., ModelFileSettings],
                                tmp_path: Path) -> None:  # fmt: skip
    settings = mednext(tiny_model(dims))
    network = build_model(settings)
    shape = (64, 64) if dims == 2 else (16, 64, 64)
    low, high = [8.0] * dims, [30.0] * dims
    high[0] = 14.0 if dims == 3 else 30.0
    target = Targets(torch.tensor([low + high]), torch.tensor([0]), torch.ones((1, *shape), dtype=torch.uint8))
    torch.stack(list(network.losses(torch.randn(1, 1, *shape), [target]).values())).sum().backward()
    for name, weight in network.pyramid.backbone.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
    file = tiny_file(dims).model_copy(update={"model": settings})
    save_model(network, file, tmp_path / "mednext.safetensors")
    again, _ = read_model(tmp_path / "mednext.safetensors")
    assert isinstance(again.pyramid.backbone, MedNeXtBackbone)
    assert len(again.detect(torch.randn(1, 1, *shape))) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_block_is_monais(dims: int) -> None:
    ours = MedNeXtBlock(6, dims)
    theirs = MonaiBlock(6, 6, EXPANSION, kernel_size=7 if dims == 2 else 5, dim=f"{dims}d")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, *(12,) * dims)
    torch.testing.assert_close(ours(x), theirs(x))


def test_what_it_has_not() -> None:
    for change in ({"pyramid": "c4"}, {"norm": "frozen_batch"}):
        with pytest.raises(ValueError, match="mednext"):
            BackboneSettings(name="mednext", **change)
    with pytest.raises(ValueError, match="one of our own"):
        register_backbone("mednext", lambda settings, dims, channels: MedNeXtBackbone(settings, dims, channels))

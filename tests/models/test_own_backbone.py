"""A backbone of the user's own: registered by name, trained, saved and read like ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.models import backbone as backbone_module
from medmaskrcnn.models.backbone import Backbone, register_backbone
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import BackboneSettings, ModelCard, ModelFileSettings, ModelSettings

Tiny = Callable[..., ModelSettings]


class Patches(Backbone):
    """Strided convolutions without overlap, in the way of ConvNeXt's stem."""

    def __init__(self, settings: BackboneSettings, spatial_dims: int, in_channels: int) -> None:
        super().__init__((4, 8, 8, 8))
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        fine = ((1,) * spatial_dims, *settings.strides)
        steps = [
            tuple(b // a for a, b in zip(*pair, strict=True)) for pair in zip(fine, settings.strides, strict=False)
        ]
        widths = (in_channels, *self.out_channels)
        self.stages = nn.ModuleList(
            conv(a, b, step, stride=step) for a, b, step in zip(widths, widths[1:], steps, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return maps


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_module, "_REGISTERED", {})
    register_backbone("patches", Patches)


@pytest.mark.usefixtures("patches")
@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_and_finds(dims: int, tiny_model: Tiny) -> None:
    settings = tiny_model(dims)
    backbone = settings.backbone.model_copy(update={"name": "patches"})
    network = build_model(settings.model_copy(update={"backbone": backbone}))
    shape = (64, 64) if dims == 2 else (16, 64, 64)
    box = torch.tensor([[8.0] * dims + [16.0] * (dims - 2) + [28.0, 30.0]])[:, : 2 * dims]
    box[:, dims:] = torch.tensor([16.0, 28.0, 30.0][3 - dims :])
    target = Targets(box, torch.tensor([0]), torch.ones((1, *shape), dtype=torch.uint8))
    torch.stack(list(network.losses(torch.randn(1, 1, *shape), [target]).values())).sum().backward()
    grad = network.get_parameter("pyramid.backbone.stages.0.weight").grad
    assert grad is not None and bool(grad.abs().sum() > 0)
    assert len(network.eval().detect(torch.randn(1, 1, *shape))) == 1


def test_its_file_needs_it_registered(
    tiny_model: Tiny, tmp_path: Path, patches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_model(2)
    settings = tiny.model_copy(update={"backbone": tiny.backbone.model_copy(update={"name": "patches"})})
    file = tmp_path / "own.safetensors"
    save_model(build_model(settings), ModelFileSettings(card=ModelCard(name="own"), model=settings), file)
    assert isinstance(read_model(file)[0].pyramid.backbone, Patches)
    monkeypatch.setattr(backbone_module, "_REGISTERED", {})
    with pytest.raises(ModelFileError, match=r"unknown backbone 'patches'.*register_backbone"):
        read_model(file)


def test_our_names_are_taken() -> None:
    with pytest.raises(ValueError, match="one of our own"):
        register_backbone("resnet18", Patches)

"""Bottom-up network: a ResNet in 2D or 3D, with a stride per axis and no batch statistics.

Returns the maps C2..C5 of FPN (Lin et al. 2017, section 3). Strides are per axis, so that the slice axis of thick-slice
scans is downsampled more slowly than the plane; normalisation is by groups of channels or by frozen constants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from itertools import pairwise

import torch
from torch import Tensor, nn

from medmaskrcnn.models import resenc
from medmaskrcnn.models.backbone_base import Backbone as Backbone
from medmaskrcnn.models.mednext import BLOCKS, MedNeXtBackbone
from medmaskrcnn.models.resenc import ResEncBackbone, stage_steps
from medmaskrcnn.models.resnet import BasicBlock, Bottleneck, ResNet
from medmaskrcnn.settings import BackboneSettings

_STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "light": (BasicBlock, (1, 1, 1, 1)),
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
MEDNEXT, RESENC = "mednext", "resenc"
"""Names of the built-in backbones that are no ResNets of this file."""

_GROUP_CHANNELS = 8  # channels per group of GroupNorm; divides all channel counts, 24 to 2048


class FrozenBatchNorm(nn.Module):
    """BatchNorm whose statistics and affine parameters are constants from the model file.

    ``y = (x - mean) * weight / sqrt(var + eps) + bias`` per channel; nothing is learnt or updated.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, *spatial)``; same shape and dtype."""
        scale, shift = self._scale_and_shift()
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)

    def fold_into(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        """Fold this normalisation into the convolution before it, in place."""
        scale, shift = self._scale_and_shift()
        with torch.no_grad():
            conv.weight.mul_(scale.view(-1, *(1,) * (conv.weight.ndim - 1)))
            conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias * scale + shift)

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class ResNetBackbone(Backbone):
    """A ResNet that returns the maps of its four stages, or of three if the last runs on regions."""

    def __init__(self, resnet: ResNet, out_channels: tuple[int, ...], *, last_on_regions: bool = False) -> None:
        super().__init__(out_channels, last_on_regions=last_on_regions)
        self.resnet = resnet

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)`` to ``[C2, C3, C4, C5]``, or without C5."""
        net = self.resnet
        x = net.stem(x)
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, *(() if self.last_on_regions else (net.layer4,))):
            x = stage(x)
            maps.append(x)
        return maps

    def res5(self, regions: Tensor) -> Tensor:
        """Regions of C4 ``(R, C4, *bins)`` through the last stage: ``(R, C5, *bins / 2)``."""
        last: Tensor = self.resnet.layer4(regions)
        return last

    def fold_norms(self) -> None:
        """Fold frozen normalisations into the convolutions before them, in place."""
        for module in list(self.resnet.modules()):
            children = dict(module.named_children())
            numbered = isinstance(module, nn.Sequential)  # a shortcut: convolution, normalisation
            pairs = [("0", "1")] if numbered else [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
            for conv_name, norm_name in pairs:
                conv, norm = children.get(conv_name), children.get(norm_name)
                if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, FrozenBatchNorm):
                    norm.fold_into(conv)
                    setattr(module, norm_name, nn.Identity())


BackboneBuilder = Callable[[BackboneSettings, int, int], Backbone]
"""Makes a backbone from settings, spatial dims and input channels."""

_REGISTERED: dict[str, BackboneBuilder] = {}


GROUP = "medmaskrcnn.backbones"
"""Entry points by which an installed package makes its backbones known, a :data:`BackboneBuilder` each."""


def register_backbone(name: str, build: BackboneBuilder) -> None:
    """Register a custom backbone under a name, for ``model.backbone.name`` of plans and model files.

    Register it before training a plan or reading a model file with this name; the file holds weights, not code. For
    the command line, batches and napari a package has it under the entry points :data:`GROUP` instead.

    Args:
        name: Its name; not that of a built-in ResNet.
        build: Called with the settings, the spatial dims and the number of input channels.

    Raises:
        ValueError: if the name is that of a built-in network.
    """
    if name in (*_STAGES, MEDNEXT, RESENC):
        raise ValueError(f"{name!r} is one of our own backbones; choose another name")
    _REGISTERED[name] = build


def build_backbone(settings: BackboneSettings, *, spatial_dims: int, in_channels: int) -> Backbone:
    """Build the network that ``settings`` describe, with random weights.

    Raises:
        ValueError: if no backbone of this name is known.
    """
    if settings.name == MEDNEXT:
        return MedNeXtBackbone(settings, spatial_dims, in_channels)
    if settings.name == RESENC:
        return ResEncBackbone(settings, spatial_dims, in_channels)
    if settings.name not in _STAGES:
        return _custom(settings.name)(settings, spatial_dims, in_channels)
    block, layers = _STAGES[settings.name]
    p2, last_on_regions = settings.strides[0], settings.pyramid == "c4"
    stem = tuple(min(2, s) for s in p2)
    steps = [tuple(c // f for f, c in zip(fine, coarse, strict=True)) for fine, coarse in pairwise(settings.strides)]
    if last_on_regions:
        steps[-1] = (2,) * spatial_dims
    resnet = ResNet(
        block,
        layers,
        stage_planes(settings),
        in_channels=in_channels,
        stem_kernel=3 if settings.name == "light" else 7,
        stem_stride=stem,
        pool_stride=tuple(s // c for s, c in zip(p2, stem, strict=True)),
        strides=[(1,) * spatial_dims, *steps],
        norm=partial(_norm, settings),
    )
    out_channels = tuple(width for _, width in stage_sizes(settings))
    return ResNetBackbone(resnet, out_channels, last_on_regions=last_on_regions)


def _custom(name: str) -> BackboneBuilder:
    """The backbone that was registered under a name, or that an installed package has under it."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        known = ", ".join((*_STAGES, MEDNEXT, RESENC, *_REGISTERED, *installed))
        raise ValueError(
            f"unknown backbone {name!r}; known: {known}. Register your own with register_backbone, or install the "
            f"package that has it under the entry points {GROUP}"
        )
    try:
        build: BackboneBuilder = installed[name].load()
    except Exception as error:  # whatever the package raises when it is imported
        raise ValueError(f"backbone {name!r} of {installed[name].value} cannot be loaded: {error}") from error
    return build


def _norm(settings: BackboneSettings, channels: int) -> nn.Module:
    if settings.norm == "group":
        return nn.GroupNorm(max(1, channels // _GROUP_CHANNELS), channels, eps=settings.norm_eps)
    return FrozenBatchNorm(channels, settings.norm_eps)


def stage_sizes(settings: BackboneSettings) -> tuple[tuple[int, int], ...]:
    """Number of residual blocks and of output channels of each of the four stages of a built-in backbone."""
    if settings.name == MEDNEXT:
        return tuple(zip(BLOCKS, stage_planes(settings), strict=True))
    if settings.name == RESENC:
        last = len(stage_steps(settings.strides))
        return tuple(zip(resenc.BLOCKS[:last], resenc.CHANNELS[:last], strict=True))[-4:]
    block, layers = _STAGES[settings.name]
    return tuple((count, n * block.expansion) for count, n in zip(layers, stage_planes(settings), strict=True))


def stage_planes(settings: BackboneSettings) -> tuple[int, ...]:
    """Channels within the blocks of each of the four stages; the stem outputs as many as the first stage has."""
    if settings.name == RESENC:
        return tuple(width for _, width in stage_sizes(settings))
    narrow = settings.name in ("light", MEDNEXT)
    return settings.channels or (settings.light_channels if narrow else (64, 128, 256, 512))

"""Bottom-up network for self-supervised weights: nnU-Net's residual encoder L (Isensee et al. 2024), in 2D and 3D.

    stem: convolution at full resolution -> up to six stages of residual blocks, each of half the resolution

It is the encoder that nnssl trains on OpenMind (Wald et al. 2024), with the names of its weights, so that these begin a
training here. A block is ResNet-D's (He et al. 2019): the shortcut of a strided block averages before its convolution.
Instance normalisation uses one image alone. The stages before P2 run at the resolution of the image and half of it, so
this network takes several times the memory of a ResNet of equal depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.backbone_base import Backbone
from medmaskrcnn.models.layers import CONV, InstanceNorm
from medmaskrcnn.settings import BackboneSettings

CHANNELS = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)
_AVERAGE_POOL: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ResEncBackbone(Backbone):
    """The stem and the stages up to P5's stride; the maps of the last four stages are C2..C5.

    Args:
        settings: Strides.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
    """

    def __init__(self, settings: BackboneSettings, spatial_dims: int, in_channels: int) -> None:
        steps = stage_steps(settings.strides)
        super().__init__(CHANNELS[len(steps) - 4 : len(steps)])
        self.stem = _Stem(in_channels, spatial_dims)
        widths = (CHANNELS[0], *CHANNELS)
        self.stages = nn.Sequential(
            *(_Stage(widths[i], widths[i + 1], step, BLOCKS[i]) for i, step in enumerate(steps))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)``, multiples of P5's stride, to ``[C2, C3, C4, C5]``."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-4:]


def stage_steps(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Stride of each stage against the one before, per axis, for P2..P5 of these ``strides``; the first has 1.

    An axis that is subsampled less than others until P2 is so in the last stages before it.
    """
    halvings = [stride.bit_length() - 1 for stride in strides[0]]
    before = [tuple(2 if n >= max(halvings) - k else 1 for n in halvings) for k in range(max(halvings))]
    after = [tuple(c // f for f, c in zip(fine, coarse, strict=True)) for fine, coarse in pairwise(strides)]
    return [(1,) * len(halvings), *before, *after]


class _ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, ...], *, bias: bool = True) -> None:
        super().__init__()
        conv = CONV[len(stride)]
        self.conv = conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)  # type: ignore[arg-type]
        self.norm = InstanceNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class _Stem(nn.Module):
    def __init__(self, in_channels: int, dims: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_ConvNorm(in_channels, CHANNELS[0], 3, (1,) * dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.convs(x))


class _Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: tuple[int, ...], count: int) -> None:
        super().__init__()
        further = [_Block(outputs, outputs, (1,) * len(stride)) for _ in range(count - 1)]
        self.blocks = nn.Sequential(_Block(inputs, outputs, stride), *further)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = _ConvNorm(outputs, outputs, 3, (1,) * len(stride))
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(_AVERAGE_POOL[len(stride)](stride, stride))  # type: ignore[arg-type]
        if inputs != outputs:
            shortcut.append(_ConvNorm(inputs, outputs, 1, (1,) * len(stride), bias=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.leaky_relu_(self.conv1(x)))
        return F.leaky_relu_(out + self.skip(x))

"""Bottom-up network that is no ResNet: MedNeXt (Roy et al. 2023), ConvNeXt's blocks (Liu et al. 2022) for 2D and 3D.

    stem: strided convolution -> per stage: [normalise, strided convolution] -> blocks

A block is a large depthwise convolution, instance normalisation, expansion to four times the channels, GELU,
compression, and the sum with its input. Its parameters have the names of MONAI's ``MedNeXtBlock``; it is our own
because ``import monai`` takes longer than all else in a short run (``docs/decisions/022``). Strides are per axis, as
those of :mod:`medmaskrcnn.models.backbone`, with ConvNeXt's separate down-sampling layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.backbone_base import Backbone
from medmaskrcnn.models.layers import CONV, InstanceNorm
from medmaskrcnn.settings import BackboneSettings

BLOCKS = (2, 2, 4, 2)
"""Blocks of the four stages: ConvNeXt's proportions at a small network's depth."""

EXPANSION = 4

_KERNEL = {2: 7, 3: 5}  # of the depthwise convolutions: ConvNeXt's, and the largest of MedNeXt


class MedNeXtBackbone(Backbone):
    """Four stages of MedNeXt blocks, each behind a strided convolution.

    Args:
        settings: Strides, and the channels of the stages (``light_channels``).
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
    """

    def __init__(self, settings: BackboneSettings, spatial_dims: int, in_channels: int) -> None:
        widths = settings.channels or settings.light_channels
        super().__init__(tuple(widths))
        before = ((1,) * spatial_dims, *settings.strides)
        channels = (in_channels, *widths)
        self.down = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage, (fine, coarse) in enumerate(zip(before, settings.strides, strict=False)):
            stride = [c // f for f, c in zip(fine, coarse, strict=True)]
            self.down.append(_downsample(channels[stage], widths[stage], stride, normalise=stage > 0))
            self.stages.append(
                nn.Sequential(*(MedNeXtBlock(widths[stage], spatial_dims) for _ in range(BLOCKS[stage])))
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)`` to ``[C2, C3, C4, C5]``."""
        maps = []
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x))
            maps.append(x)
        return maps


class MedNeXtBlock(nn.Module):
    """A residual block of one resolution: ``(B, C, *spatial)`` to the same shape."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        conv, kernel = CONV[dims], _KERNEL[dims]
        self.conv1 = conv(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = InstanceNorm(channels)
        self.conv2 = conv(channels, EXPANSION * channels, 1)
        self.conv3 = conv(EXPANSION * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, of the shape of ``x``."""
        out: Tensor = self.conv3(F.gelu(self.conv2(self.norm(self.conv1(x)))))
        return x + out


def _downsample(inputs: int, outputs: int, stride: Sequence[int], *, normalise: bool) -> nn.Sequential:
    """A convolution whose kernels overlap, so that no voxel is passed over, with its own stride along each axis."""
    kernel = [3 if step < 4 else 5 for step in stride]
    conv = CONV[len(stride)](inputs, outputs, kernel, stride=tuple(stride), padding=[k // 2 for k in kernel])  # type: ignore[arg-type]
    return nn.Sequential(InstanceNorm(inputs) if normalise else nn.Identity(), conv)

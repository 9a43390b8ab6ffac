"""ResNet in 2D and 3D (He et al. 2016), with a stride per axis and any normalisation without batch statistics.

Parameters have the names and the first values of MONAI's and torchvision's ResNets, so that their weights load. It is
our own because ``import monai`` takes longer than all else in a short run; see ``docs/decisions/022``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.layers import CONV, MAX_POOL

Stride = tuple[int, ...]
MakeNorm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels."""


class BasicBlock(nn.Module):
    """Two 3-wide convolutions beside a shortcut; the first has the stride."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: Stride, shortcut: nn.Module | None, norm: MakeNorm) -> None:
        super().__init__()
        conv = CONV[len(stride)]
        self.conv1 = conv(channels, planes, 3, stride=stride, padding=1, bias=False)  # type: ignore[arg-type]
        self.bn1 = norm(planes)
        self.conv2 = conv(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, planes, *spatial / stride)``."""
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3-wide convolution, which has the stride, between two of width 1, beside a shortcut."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: Stride, shortcut: nn.Module | None, norm: MakeNorm) -> None:
        super().__init__()
        conv, wide = CONV[len(stride)], planes * self.expansion
        self.conv1 = conv(channels, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = conv(planes, planes, 3, stride=stride, padding=1, bias=False)  # type: ignore[arg-type]
        self.bn2 = norm(planes)
        self.conv3 = conv(planes, wide, 1, bias=False)
        self.bn3 = norm(wide)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, 4 planes, *spatial / stride)``."""
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu_(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The stem and the four stages, for :class:`medmaskrcnn.models.backbone.ResNetBackbone`.

    Args:
        block: Kind of the residual blocks.
        layers: Number of blocks of each stage.
        planes: Channels within the blocks of each stage; the stem outputs as many as the first stage has.
        in_channels: Channels of the image.
        stem_kernel: Width of the first convolution.
        stem_stride, pool_stride: Strides of the first convolution and of the pooling after it, per axis.
        strides: Stride of each stage per axis.
        norm: Makes the normalisations.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        planes: Sequence[int],
        *,
        in_channels: int,
        stem_kernel: int,
        stem_stride: Stride,
        pool_stride: Stride,
        strides: Sequence[Stride],
        norm: MakeNorm,
    ) -> None:
        super().__init__()
        dims, width = len(stem_stride), planes[0]
        conv = CONV[dims]
        self.conv1 = conv(in_channels, width, stem_kernel, stride=stem_stride, padding=stem_kernel // 2, bias=False)  # type: ignore[arg-type]
        self.bn1 = norm(width)
        subsamples = any(step > 1 for step in pool_stride)  # otherwise it would only blur
        self.maxpool = MAX_POOL[dims](3, stride=pool_stride, padding=1) if subsamples else nn.Identity()  # type: ignore[arg-type]
        widths = [width, *(n * block.expansion for n in planes)]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(block, count, channels, n, stride, norm)
            for count, (channels, _), n, stride in zip(layers, pairwise(widths), planes, strides, strict=True)
        )
        for module in self.modules():
            if isinstance(module, conv):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, images: Tensor) -> Tensor:
        """The first convolution and the pooling: ``(B, C, *spatial)`` to the first stage's input."""
        x: Tensor = self.maxpool(F.relu_(self.bn1(self.conv1(images))))
        return x


def _stage(
    block: type[BasicBlock] | type[Bottleneck], count: int, channels: int, planes: int, stride: Stride, norm: MakeNorm
) -> nn.Sequential:
    wide, one = planes * block.expansion, (1,) * len(stride)
    shortcut = None
    if channels != wide or stride != one:
        conv = CONV[len(stride)](channels, wide, 1, stride=stride, bias=False)  # type: ignore[arg-type]
        shortcut = nn.Sequential(conv, norm(wide))
    first = block(channels, planes, stride, shortcut, norm)
    return nn.Sequential(first, *(block(wide, planes, one, None, norm) for _ in range(count - 1)))

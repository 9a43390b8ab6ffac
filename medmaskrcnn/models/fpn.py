"""Feature pyramid (Lin et al. 2017): C2..C5 of the backbone to P2..P6 with equal numbers of channels.

P6 is P5 subsampled by two on every axis (FPN, footnote 2). The network without a pyramid, ``c4``, uses C4 unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.backbone import Backbone
from medmaskrcnn.models.layers import CONV
from medmaskrcnn.settings import BackboneSettings


class FPN(nn.Module):
    """The top-down path (FPN, section 3), with the names of the parameters of MONAI's and torchvision's."""

    def __init__(self, in_channels: Sequence[int], channels: int, *, spatial_dims: int) -> None:
        super().__init__()
        conv = CONV[spatial_dims]
        self.inner_blocks = nn.ModuleList()
        self.layer_blocks = nn.ModuleList()
        for width in in_channels:
            self.inner_blocks.append(conv(width, channels, 1))
            self.layer_blocks.append(conv(channels, channels, 3, padding=1))
        for module in self.modules():
            if isinstance(module, conv):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``(B, C_i, *map)``, the finest first, to as many levels ``(B, channels, *map)``."""
        inner: list[Tensor] = [conv(c) for conv, c in zip(self.inner_blocks, maps, strict=True)]
        for finer in range(len(inner) - 2, -1, -1):
            inner[finer] = inner[finer] + F.interpolate(inner[finer + 1], size=inner[finer].shape[2:], mode="nearest")
        return [conv(x) for conv, x in zip(self.layer_blocks, inner, strict=True)]


class Pyramid(nn.Module):
    """Backbone and FPN together: the dense part of the network.

    Attributes:
        strides: Stride of each level per spatial axis, in voxels of the input.
        channels: Number of channels of every level.
        region_levels: Number of levels from which regions are pooled: P2..P5, or the only one.
        region_channels: Number of channels of a region at the heads' input.
    """

    def __init__(
        self, backbone: Backbone, fpn: FPN | None, strides: tuple[tuple[int, ...], ...], channels: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.strides = strides
        self.channels = channels
        self.region_levels = max(1, len(strides) - 1)
        self.region_channels = backbone.out_channels[-1] if backbone.last_on_regions else channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)`` to ``[P2, P3, P4, P5, P6]``, each ``(B, channels, *map)``, or one map."""
        maps = self.backbone(images)
        if self.fpn is None:
            return maps[-1:]
        levels: list[Tensor] = self.fpn(maps)
        every_second = F.max_pool2d if levels[-1].ndim == 4 else F.max_pool3d
        return [*levels, every_second(levels[-1], 1, stride=2)]

    def res5(self, regions: Tensor) -> Tensor:
        """The heads' input from regions ``(R, channels, *bins)``: unchanged, or the last stage's output on them."""
        return self.backbone.res5(regions) if self.backbone.last_on_regions else regions


def build_pyramid(backbone: Backbone, settings: BackboneSettings, *, spatial_dims: int) -> Pyramid:
    """Build the pyramid named by ``settings.pyramid`` on a backbone."""
    width, strides = settings.fpn_channels, settings.strides
    if settings.pyramid == "c4":
        return Pyramid(backbone, None, strides[2:3], backbone.out_channels[2])
    fpn = FPN(backbone.out_channels, width, spatial_dims=spatial_dims)
    return Pyramid(backbone, fpn, (*strides, tuple(2 * s for s in strides[-1])), width)

"""Feature pyramid (Lin et al. 2017): C2..C5 of the backbone become P2..P6 of equal width.

The top-down path is MONAI's; P6 is P5 subsampled by two on every axis (FPN, footnote 2). The network without a
pyramid, ``c4``, takes C4 as it is.
"""

from __future__ import annotations

from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torch import Tensor, nn

from medmaskrcnn.models.backbone import Backbone
from medmaskrcnn.settings import BackboneSettings


class Pyramid(nn.Module):
    """Backbone and FPN together: the dense part of the network.

    Attributes:
        strides: Stride of each level per spatial axis, in voxels of the input.
        channels: Of every level.
        region_levels: How many levels regions are read from: P2..P5, or the only one.
        region_channels: Of a region as the heads are given it.
    """

    def __init__(
        self, backbone: Backbone, fpn: FeaturePyramidNetwork | None, strides: tuple[tuple[int, ...], ...], channels: int
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
        return list(self.fpn({f"C{level}": c for level, c in enumerate(maps, start=2)}).values())

    def res5(self, regions: Tensor) -> Tensor:
        """What the heads are given of regions ``(R, channels, *bins)``: those, or what the last stage makes of them."""
        return self.backbone.res5(regions) if self.backbone.last_on_regions else regions


def build_pyramid(backbone: Backbone, settings: BackboneSettings, *, spatial_dims: int) -> Pyramid:
    """Put what ``settings.pyramid`` asks for on a backbone."""
    width, strides = settings.fpn_channels, settings.strides
    if settings.pyramid == "c4":
        return Pyramid(backbone, None, strides[2:3], backbone.out_channels[2])
    fpn = FeaturePyramidNetwork(spatial_dims, list(backbone.out_channels), width, LastLevelMaxPool(spatial_dims))
    return Pyramid(backbone, fpn, (*strides, tuple(2 * s for s in strides[-1])), width)

"""Feature pyramid (Lin et al. 2017): C2..C5 of the backbone to P2..P6 with equal numbers of channels.

The top-down path is MONAI's; P6 is P5 subsampled by two on every axis (FPN, footnote 2). The network without a
pyramid, ``c4``, uses C4 unchanged.
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
        channels: Number of channels of every level.
        region_levels: Number of levels from which regions are pooled: P2..P5, or the only one.
        region_channels: Number of channels of a region at the heads' input.
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
        """The heads' input from regions ``(R, channels, *bins)``: unchanged, or the last stage's output on them."""
        return self.backbone.res5(regions) if self.backbone.last_on_regions else regions


def build_pyramid(backbone: Backbone, settings: BackboneSettings, *, spatial_dims: int) -> Pyramid:
    """Build the pyramid named by ``settings.pyramid`` on a backbone."""
    width, strides = settings.fpn_channels, settings.strides
    if settings.pyramid == "c4":
        return Pyramid(backbone, None, strides[2:3], backbone.out_channels[2])
    fpn = FeaturePyramidNetwork(spatial_dims, list(backbone.out_channels), width, LastLevelMaxPool(spatial_dims))
    return Pyramid(backbone, fpn, (*strides, tuple(2 * s for s in strides[-1])), width)

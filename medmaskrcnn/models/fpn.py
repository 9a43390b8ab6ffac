"""Feature pyramid (Lin et al. 2017): C2..C5 of the backbone become P2..P6 of equal width.

The top-down path is MONAI's; P6 is P5 subsampled by two on every axis (FPN, footnote 2).
"""

from __future__ import annotations

from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torch import Tensor, nn

from medmaskrcnn.models.backbone import Backbone


class Pyramid(nn.Module):
    """Backbone and FPN together: the dense part of the network.

    Attributes:
        strides: Stride of P2..P6 per spatial axis, in voxels of the input.
    """

    def __init__(self, backbone: Backbone, fpn: FeaturePyramidNetwork, strides: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.strides = (*strides, tuple(2 * s for s in strides[-1]))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Image batch ``(B, C, *spatial)`` to ``[P2, P3, P4, P5, P6]``, each ``(B, fpn_channels, *map)``."""
        maps = self.backbone(images)
        return list(self.fpn({f"C{level}": c for level, c in enumerate(maps, start=2)}).values())


def build_pyramid(
    backbone: Backbone, *, spatial_dims: int, channels: int, strides: tuple[tuple[int, ...], ...]
) -> Pyramid:
    """Put MONAI's FPN with a subsampled P6 on a backbone."""
    fpn = FeaturePyramidNetwork(spatial_dims, list(backbone.out_channels), channels, LastLevelMaxPool(spatial_dims))
    return Pyramid(backbone, fpn, strides)

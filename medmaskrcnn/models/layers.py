"""torch's layers by the number of spatial dims, which is a parameter of every part of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONV: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with learnt scale and shift, for maps of a single voxel too, which torch's refuse.

    Such a map becomes the shift alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to the same shape, without mean and with unit variance before scale and shift."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

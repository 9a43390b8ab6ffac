"""The mask head: a small fully convolutional network on each region (Mask R-CNN, section 3 and figure 4, right).

One mask per class with a sigmoid, so that classes do not compete for voxels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.layers import CONV, TRANSPOSED_CONV


class MaskHead(nn.Module):
    """Maps region features to mask logits at twice the number of bins."""

    def __init__(self, *, channels: int, hidden: int, convs: int, spatial_dims: int, classes: int) -> None:
        super().__init__()
        conv, deconv = CONV[spatial_dims], TRANSPOSED_CONV[spatial_dims]
        widths = [channels] + [hidden] * convs
        self.convs = nn.ModuleList(conv(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.upsample = deconv(widths[-1], hidden, 2, stride=2)
        self.logits = conv(hidden, classes, 1)
        for layer in (*self.convs, self.upsample, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """``(R, C, *bins)`` to logits ``(R, K, *2 bins)``, float32."""
        x = regions
        for layer in self.convs:
            x = F.relu_(layer(x))
        x = F.relu_(self.upsample(x))
        with torch.autocast(x.device.type, enabled=False):  # logits stay in float32
            return self.logits(x.float())


def select_class_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits ``(R, *size)`` of each region's own class; their sigmoid is the mask's probability.

    Args:
        logits: ``(R, K, *size)``.
        labels: ``(R,)`` int64, 0 is the first class.
    """
    return logits[torch.arange(len(labels), device=labels.device), labels]

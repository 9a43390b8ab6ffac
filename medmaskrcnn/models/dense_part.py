"""Backbone, FPN and RPN head as one module: the part of the network whose shapes depend only on the image size.

This part can be compiled by other runtimes and exported to other formats; later steps depend on the image content.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from medmaskrcnn.models.fpn import Pyramid
from medmaskrcnn.models.rpn import RPNHead

Dense = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Pyramid levels ``(B, C, *map)``; objectness ``(B, cells * A)`` and deltas ``(B, cells * A, 2S)`` of each level."""


class DensePart(nn.Module):
    """Maps images to a flat tuple: all levels of the pyramid, then their objectness, then their deltas.

    Args:
        pyramid: In float32; copied.
        rpn_head: In float32; copied.
    """

    def __init__(self, pyramid: Pyramid, rpn_head: RPNHead) -> None:
        super().__init__()
        self.pyramid = copy.deepcopy(pyramid)
        self.pyramid.backbone.fold_norms()
        self.rpn_head = copy.deepcopy(rpn_head)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, *spatial)`` to three times as many tensors as there are levels."""
        levels = self.pyramid(images)
        objectness, deltas = self.rpn_head(levels)
        return (*levels, *objectness, *deltas)


def unflatten(made: tuple[Tensor, ...]) -> Dense:
    """Split the output of :class:`DensePart` into levels ``(B, C, *map)``, objectness and deltas; see :data:`Dense`."""
    levels = len(made) // 3
    return list(made[:levels]), list(made[levels : 2 * levels]), list(made[2 * levels :])

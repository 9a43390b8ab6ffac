"""Backbone, FPN and RPN head as one module: the part of the network whose shapes depend on the image alone.

That is what other runtimes can compile and other formats can hold; what follows depends on what is in the image.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from medmaskrcnn.models.fpn import Pyramid
from medmaskrcnn.models.rpn import RPNHead

Dense = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Pyramid levels ``(B, C, *map)``; objectness ``(B, cells * A)`` and deltas ``(B, cells * A, 2S)`` of each."""


class DensePart(nn.Module):
    """Images to a flat tuple: all levels of the pyramid, then their objectness, then their deltas.

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
    """What :class:`DensePart` made, by kind: levels ``(B, C, *map)``, objectness and deltas as :data:`Dense` says."""
    levels = len(made) // 3
    return list(made[:levels]), list(made[levels : 2 * levels]), list(made[2 * levels :])

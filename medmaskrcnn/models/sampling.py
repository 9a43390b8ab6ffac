"""Sampling of positives and negatives for a loss (Fast R-CNN, section 2.3; Faster R-CNN, section 3.1.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from medmaskrcnn.models.matching import BACKGROUND

_HARD_POOL = 20  # n hard negatives are drawn from the 20 n hardest (nnDetection's choice)


def sample(
    matches: Tensor,
    *,
    count: int,
    positive_fraction: float,
    random: torch.Generator | None = None,
    hardness: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` boxes, of which at most ``positive_fraction`` are positives.

    Args:
        matches: ``(M,)`` int64 as the matchers return it.
        count: Maximum number to draw; negatives fill up what positives leave.
        positive_fraction: Maximum fraction of positives.
        random: CPU generator of all random numbers; by default torch's global generator.
        hardness: ``(M,)``: negatives are drawn only from those with the largest values (hard negative mining).

    Returns:
        Indices of the drawn positives and of the drawn negatives, each ``(n,)`` int64, in random order.
    """
    positives = torch.nonzero(matches >= 0).flatten()
    negatives = torch.nonzero(matches == BACKGROUND).flatten()
    n_positive = min(len(positives), int(count * positive_fraction))
    n_negative = min(len(negatives), count - n_positive)
    if hardness is not None and _HARD_POOL * n_negative < len(negatives):
        negatives = negatives[torch.topk(hardness[negatives], _HARD_POOL * n_negative).indices]
    return _draw(positives, n_positive, random), _draw(negatives, n_negative, random)


def _draw(indices: Tensor, n: int, random: torch.Generator | None) -> Tensor:
    return indices[torch.randperm(len(indices), generator=random)[:n].to(indices.device)]

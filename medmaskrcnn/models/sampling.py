"""A random subset of positives and negatives for a loss (Fast R-CNN, section 2.3; Faster R-CNN, section 3.1.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from medmaskrcnn.models.matching import BACKGROUND


def sample(matches: Tensor, *, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` boxes, of which at most ``positive_fraction`` are positives.

    Args:
        matches: ``(M,)`` int64 as the matchers return it.
        count: How many to draw; negatives fill up what positives leave.
        positive_fraction: Largest share of positives.

    Returns:
        Indices of the drawn positives and of the drawn negatives, each ``(n,)`` int64, in random order
        (torch's global generator).
    """
    positives = torch.nonzero(matches >= 0).flatten()
    negatives = torch.nonzero(matches == BACKGROUND).flatten()
    n_positive = min(len(positives), int(count * positive_fraction))
    n_negative = min(len(negatives), count - n_positive)
    return _draw(positives, n_positive), _draw(negatives, n_negative)


def _draw(indices: Tensor, n: int) -> Tensor:
    return indices[torch.randperm(len(indices), device=indices.device)[:n]]

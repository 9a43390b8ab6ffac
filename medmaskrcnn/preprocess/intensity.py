"""Raw values to what the network was trained on: windows, percentiles or a fixed range; then mean and deviation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.config import PreprocessSettings

_MOST_SAMPLES = 4_000_000  # voxels looked at for percentiles; a fixed stride keeps the choice reproducible


def normalise(image: Tensor, settings: PreprocessSettings) -> Tensor:
    """``(C, D, H, W)`` raw float32, all finite, to ``(C', D, H, W)``; ``C'`` is C times the number of windows.

    Without windows ``C'`` is ``C``. With several windows the channels of the first come first.
    """
    if settings.windows:
        mapped = torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in settings.windows])
    elif settings.percentiles:
        mapped = torch.stack([_by_percentiles(channel, settings) for channel in image])
    else:
        low, high = settings.value_range
        mapped = (image - low) / (high - low)
    mean = torch.tensor(settings.mean).view(-1, 1, 1, 1)
    std = torch.tensor(settings.std).view(-1, 1, 1, 1)
    return (mapped - mean) / std


def fill_not_finite(image: Tensor) -> Tensor:
    """Put the lowest value of an image ``(C, D, H, W)`` where one is not finite (padding of some scanners), else 0.

    Done before resampling, which would spread one such value over its neighbours.
    """
    finite = torch.isfinite(image)
    if bool(finite.all()):
        return image
    lowest = image[finite].min() if bool(finite.any()) else torch.zeros(())
    return torch.where(finite, image, lowest)


def _by_percentiles(channel: Tensor, settings: PreprocessSettings) -> Tensor:
    """One channel by its own percentiles: sequences of one scan have scales of their own."""
    assert settings.percentiles is not None
    values = channel.flatten()[:: -(-channel.numel() // _MOST_SAMPLES)].numpy()
    ranks = [round(p / 100 * (len(values) - 1)) for p in settings.percentiles]
    low, high = (float(value) for value in np.partition(values, ranks)[ranks])
    return ((channel - low) / max(high - low, 1e-6)).clamp(0, settings.ceiling)

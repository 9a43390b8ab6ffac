"""Raw values to what the network was trained on: windows, percentiles or a fixed range; then mean and deviation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.settings import PreprocessSettings

_MOST_SAMPLES = 4_000_000  # voxels looked at for percentiles; a fixed stride keeps the choice reproducible


def normalise(image: Tensor, settings: PreprocessSettings) -> Tensor:
    """``(C, D, H, W)`` raw float32, all finite, to ``(C', D, H, W)``; ``C'`` is C times the number of windows.

    Without windows ``C'`` is ``C``. With several windows the channels of the first come first.
    """
    if settings.windows:
        mapped = torch.cat([_scaled(image, low, high - low).clamp_(0, 1) for low, high in settings.windows])
    elif settings.percentiles:
        lows, extents = _percentiles(image, settings.percentiles)
        mapped = _scaled(image, lows, extents).clamp_(0, settings.ceiling)
    else:
        low, high = settings.value_range
        mapped = _scaled(image, low, high - low)
    mean, std = (torch.tensor(x).view(-1, 1, 1, 1) for x in (settings.mean, settings.std))
    return mapped.sub_(mean).div_(std)


def _scaled(image: Tensor, low: float | Tensor, extent: float | Tensor) -> Tensor:
    """A new tensor, worked on in place from then on: a large scan is held once more, not once a step."""
    return (image - low).div_(extent)


def fill_not_finite(image: Tensor) -> Tensor:
    """Put the lowest value of an image ``(C, D, H, W)`` where one is not finite (padding of some scanners), else 0.

    Done before resampling, which would spread one such value over its neighbours.
    """
    if not image.numel() or all(torch.isfinite(end) for end in image.aminmax()):  # NaN is its own least and largest
        return image
    finite = torch.isfinite(image)
    lowest = image[finite].min() if bool(finite.any()) else torch.zeros(())
    return torch.where(finite, image, lowest)


def _percentiles(image: Tensor, percentiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Low and extent of each channel ``(C, 1, 1, 1)``: sequences of one scan have scales of their own."""
    lows, extents = [], []
    for channel in image:
        values = channel.flatten()[:: -(-channel.numel() // _MOST_SAMPLES)].numpy()
        ranks = [round(p / 100 * (len(values) - 1)) for p in percentiles]
        low, high = (float(value) for value in np.partition(values, ranks)[ranks])
        lows.append(low)
        extents.append(max(high - low, 1e-6))
    return torch.tensor(lows).view(-1, 1, 1, 1), torch.tensor(extents).view(-1, 1, 1, 1)

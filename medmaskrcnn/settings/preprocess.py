"""Settings of preprocessing: how a scan becomes the network's input.

Axis order is that of arrays: D, H, W in 3D and H, W in 2D. Lengths are voxels of the network's input
(after preprocessing) unless a name says mm.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from medmaskrcnn.settings.base import Count, Positive, Settings


class PreprocessSettings(Settings):
    """Conversion of a scan's voxels to the network's input tensor.

    Attributes:
        orientation: ``"SPL"`` (axes run up, to the back, to the left), ``"acquisition"`` (the thickest axis comes
            first, the other two keep the order of SPL) or ``"as_stored"`` (photographs).
        spacing_mm: Target spacing along the network's D, H, W; ``None`` keeps the scan's own along that axis.
        resize_min_max: torchvision's rule for photographs: scale so that the shorter side has the first size,
            unless the longer would exceed the second. Excludes ``spacing_mm``.
        antialias: Low-pass filter when downsampling.
        windows: Raw value ranges; each becomes one channel in which the range is mapped to [0, 1] and clipped.
        percentiles: Without ``windows``: the range between these percentiles of each channel is mapped to [0, 1].
        ceiling: After ``percentiles``: values are clipped to [0, ceiling]. With a low upper percentile and a high
            ceiling the brightness of organs does not depend on the amount of bright fluid in the scan.
        value_range: Without either: this raw range is mapped to [0, 1] without clipping.
        mean, std: Per channel after that mapping: ``(x - mean) / std``. A single value applies to all channels.
        channel_names: Names of the scan's channels, in order, of a model of several sequences (``"T1"``, ``"FLAIR"``);
            empty if they have none.
        pad_multiple: The tensor is padded with zeros at the far end to multiples of these, per spatial axis.
    """

    orientation: Literal["SPL", "acquisition", "as_stored"] = "SPL"
    spacing_mm: tuple[Positive | None, Positive | None, Positive | None] = (None, None, None)
    resize_min_max: tuple[Count, Count] | None = None
    antialias: bool = True
    windows: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None
    ceiling: Positive = 1.0
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    channel_names: tuple[str, ...] = ()
    pad_multiple: tuple[Count, ...] = (32, 32)

    @model_validator(mode="after")
    def _check(self) -> PreprocessSettings:
        ranges = [*self.windows, self.value_range, *([self.percentiles] if self.percentiles else [])]
        if any(low >= high for low, high in ranges):
            raise ValueError(f"each intensity range must be (low, high) with low < high, got {ranges}")
        if len({name.casefold() for name in self.channel_names}) < len(self.channel_names):
            raise ValueError(f"channel_names must be distinct, got {self.channel_names}")
        if self.windows and self.percentiles:
            raise ValueError("give either windows or percentiles, not both")
        if self.resize_min_max and any(self.spacing_mm):
            raise ValueError("give either spacing_mm or resize_min_max, not both")
        return self

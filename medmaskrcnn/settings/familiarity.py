"""What a model remembers of the scans it was trained on, to tell whether another scan looks like them."""

from __future__ import annotations

from pydantic import model_validator

from medmaskrcnn.settings.base import Count, Positive, Settings


class FamiliaritySettings(Settings):
    """A normal distribution of pooled features and two thresholds (:mod:`medmaskrcnn.inference.familiarity`).

    Attributes:
        mean, scale: ``(F,)`` mean and standard deviation of each feature over windows of the model's own scans.
        axes: ``(A, F)`` orthonormal principal axes of the standardised features.
        variances: ``(A,)`` variance along each axis.
        residual: Mean squared length of what the axes leave.
        stamped_above: A scan whose strangeness is above this is out of domain: it is segmented, and the result says so.
        refused_above: Above this it is refused, unless the user allows it.
        coarsest_mm: Largest spacing of the scans along the network's D, H, W; ``None`` if it was unknown.
        scans: Number of scans from which all this was estimated.
    """

    mean: tuple[float, ...]
    scale: tuple[Positive, ...]
    axes: tuple[tuple[float, ...], ...]
    variances: tuple[Positive, ...]
    residual: Positive
    stamped_above: float
    refused_above: float
    coarsest_mm: tuple[Positive, Positive, Positive] | None = None
    scans: Count

    @model_validator(mode="after")
    def _check(self) -> FamiliaritySettings:
        features = len(self.mean)
        if len(self.scale) != features or any(len(axis) != features for axis in self.axes):
            raise ValueError(f"mean, scale and axes must have as many features, mean has {features}")
        if len(self.variances) != len(self.axes):
            raise ValueError(f"each of {len(self.axes)} axes needs its variance, got {len(self.variances)}")
        if self.refused_above < self.stamped_above:
            raise ValueError("refused_above must not be below stamped_above")
        return self

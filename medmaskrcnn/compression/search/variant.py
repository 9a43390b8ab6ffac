"""A variant (full or pruned network, engine, precision, number of proposals) and its measured outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    Attributes:
        engine: ``torch``, ``openvino`` or ``torch-compile``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        proposals: Maximum number of proposals per slice or tile; ``None`` keeps the model's own number.
        pruned: Share of the channels that was removed, 0 for the original network.
    """

    engine: str
    precision: str
    proposals: int | None = None
    pruned: float = 0.0

    @property
    def name(self) -> str:
        """Readable name, which also identifies the variant."""
        parts = [f"{self.engine} {self.precision}"]
        parts += [f"{self.proposals} proposals"] if self.proposals is not None else []
        parts += [f"{self.pruned:.0%} pruned"] if self.pruned else []
        return ", ".join(parts)


ORIGINAL = Variant("torch", "fp32")
"""The variant that all others are compared with."""


@dataclass(frozen=True)
class VariantResult:
    """Measured speed and AP of a variant.

    Attributes:
        variant: What was tried.
        seconds: Median time of a case.
        times: Speed-up over the original: median over pairs of consecutive runs.
        ap: Average precision of masks (of boxes where there are none) on the validation cases, COCO's mean over IoUs.
        error: Why it could not be tried; the figures are then ``None``.
    """

    variant: Variant
    seconds: float | None = None
    times: float | None = None
    ap: float | None = None
    error: str = ""

    def loss(self, original: VariantResult) -> float | None:
        """AP that is lost against the original; negative where it gained."""
        return None if self.ap is None or original.ap is None else original.ap - self.ap


def allowed(outcomes: Sequence[VariantResult], most: float) -> list[VariantResult]:
    """Outcomes that lose at most ``most`` AP against the first, which is the original; fastest first."""
    found = [(o, o.loss(outcomes[0])) for o in outcomes]
    kept = [o for o, loss in found if loss is not None and loss <= most + 1e-9]
    return sorted(kept, key=lambda o: -(o.times or 0.0))


def best_trade_offs(outcomes: Sequence[VariantResult]) -> list[VariantResult]:
    """The Pareto front, fastest first: outcomes that no other beats in both speed and AP."""
    front: list[VariantResult] = []
    done = [o for o in outcomes if o.ap is not None and o.times is not None]
    for one in sorted(done, key=lambda o: (-(o.times or 0.0), -(o.ap or 0.0))):
        if not front or (one.ap or 0.0) > (front[-1].ap or 0.0):
            front.append(one)
    return front

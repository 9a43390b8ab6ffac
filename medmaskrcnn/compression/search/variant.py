"""What is tried: a network, whole or pruned, with an engine, a precision, a number of proposals; what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    Attributes:
        engine: ``torch``, ``openvino`` or ``torch-compile``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        proposals: At most so many a slice or tile; ``None`` leaves the model's own number.
        pruned: Share of the channels that is gone, 0 for the network as it was.
    """

    engine: str
    precision: str
    proposals: int | None = None
    pruned: float = 0.0

    @property
    def name(self) -> str:
        """For people, and to know it again."""
        parts = [f"{self.engine} {self.precision}"]
        parts += [f"{self.proposals} proposals"] if self.proposals is not None else []
        parts += [f"{self.pruned:.0%} pruned"] if self.pruned else []
        return ", ".join(parts)


ORIGINAL = Variant("torch", "fp32")
"""What all others are compared with."""


@dataclass(frozen=True)
class VariantResult:
    """What a variant was worth.

    Attributes:
        variant: What was tried.
        seconds: Median time of a case.
        times: How many times as fast as the original: median over pairs of runs that followed one another.
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
    """Those that lose at most so much AP against the first, which is the original; the fastest first."""
    found = [(o, o.loss(outcomes[0])) for o in outcomes]
    kept = [o for o, loss in found if loss is not None and loss <= most + 1e-9]
    return sorted(kept, key=lambda o: -(o.times or 0.0))


def best_trade_offs(outcomes: Sequence[VariantResult]) -> list[VariantResult]:
    """The Pareto front, fastest first: those that none other beats in both speed and AP."""
    front: list[VariantResult] = []
    done = [o for o in outcomes if o.ap is not None and o.times is not None]
    for one in sorted(done, key=lambda o: (-(o.times or 0.0), -(o.ap or 0.0))):
        if not front or (one.ap or 0.0) > (front[-1].ap or 0.0):
            front.append(one)
    return front

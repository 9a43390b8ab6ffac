"""The order in which variants are tried: engines and precisions, then fewer proposals, then fewer channels.

Each stage continues with the fastest variants so far within the allowed AP loss, so that a dozen measurements replace
a hundred. Losses add up, but every variant is measured as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

from medmaskrcnn.compression.search.variant import ORIGINAL, Variant, VariantResult, allowed
from medmaskrcnn.models.runtime.precision import multiplies_bf16

Try = Callable[[Variant], VariantResult]
"""Measures a variant."""

_BUDGETS = (2, 4, 8)  # divisors of the model's own number of proposals
_FEWEST = 20  # proposals
_RUNTIMES_OF_PRUNED = 2


def runtimes(target: str) -> tuple[list[Variant], list[str]]:
    """Engines and precisions to try on a CPU or GPU, the original first, and the reasons why others are left out."""
    if target == "gpu":
        return [ORIGINAL, Variant("torch", "bf16"), *(Variant("torch-compile", p) for p in ("fp32", "bf16"))], []
    found, left_out = [ORIGINAL], []
    if multiplies_bf16():
        found.append(Variant("torch", "bf16"))
    else:
        left_out.append("bf16: this processor does not multiply it natively")
    if find_spec("openvino") is None:
        left_out.append('OpenVINO: not installed; get it with: pip install "medmaskrcnn[openvino]"')
        return found, left_out
    found += [Variant("openvino", precision) for precision in (("fp32", "bf16") if multiplies_bf16() else ("fp32",))]
    if find_spec("nncf") is None:
        left_out.append('8 bits: NNCF is not installed; get it with: pip install "medmaskrcnn[openvino]"')
    else:
        found.append(Variant("openvino", "int8"))
    return found, left_out


def search(first: Sequence[Variant], proposals: int, shares: Sequence[float], most: float, measure: Try) -> None:
    """Try variants; ``measure`` stores the outcome of each.

    Args:
        first: Engines and precisions, the original first.
        proposals: The model's own number of proposals.
        shares: Shares of channels to prune.
        most: Largest allowed loss of AP.
        measure: Measures a variant.
    """
    outcomes = [measure(variant) for variant in first]
    enough = proposals
    for part in _BUDGETS:
        fewer = proposals // part
        fast = allowed(outcomes, most)
        if fewer < _FEWEST or not fast:
            break
        outcomes.append(measure(replace(fast[0].variant, proposals=fewer)))
        if outcomes[-1] not in allowed(outcomes, most):
            outcomes.append(measure(replace(fast[0].variant, proposals=round(math.sqrt(enough * fewer)))))
            break
        enough = fewer
    budget = next((o.variant.proposals for o in allowed(outcomes, most)), None)
    for share in shares:
        for number, runtime in enumerate(_fastest_runtimes(outcomes[: len(first)], most)):
            measure(replace(runtime, proposals=budget, pruned=share))
            if number == 0 and budget is not None:  # fewer proposals may have used up the allowed AP loss
                measure(replace(runtime, pruned=share))


def _fastest_runtimes(outcomes: Sequence[VariantResult], most: float) -> list[Variant]:
    """Runtimes for the pruned networks: the fastest of those within the allowed loss."""
    return [o.variant for o in allowed(outcomes, most)][:_RUNTIMES_OF_PRUNED]

"""``segment --profile``: a table of what each stage took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medmaskrcnn.cli.console import echo
from medmaskrcnn.cli.run_cases import Case, CaseOutcome, Wishes, run_cases
from medmaskrcnn.cli.tables import print_table

if TYPE_CHECKING:
    from medmaskrcnn.hub.loaded_model import LoadedModel
    from medmaskrcnn.models.runtime.profile import Profile

_MB = 1e6
_GIGA = 1e9


def profiled(cases: Sequence[Case], model: LoadedModel, wishes: Wishes) -> list[CaseOutcome]:
    """As :func:`run_cases`, then print what the stages of all cases took; errors as there."""
    from medmaskrcnn.models.runtime.profile import Profile  # here: help needs no torch

    profile = Profile(model.device)
    with profile.listening(*model.networks):
        outcomes = run_cases(cases, replace(model, watch=profile.watch), wishes, profile.progress)
        profile.end()
    print_profile(profile, model)
    return outcomes


def print_profile(profile: Profile, model: LoadedModel) -> None:
    """The stages, and how close the dense ones come to the machine's limit."""
    from medmaskrcnn.models.runtime.profile import gemm_rate, torch_dtype

    precision = model.network.precision
    rows = [
        [cost.name, f"{cost.seconds:.3f}", f"{cost.share:.1%}",
         "?" if cost.peak_bytes is None else f"{cost.peak_bytes / _MB:.0f}"]
        for cost in profile.costs
    ]  # fmt: skip
    title = f"stages, {model.settings.card.name} in {precision} on {model.device.type}"
    print_table(title, ["stage", "s", "share", "peak MB"], rows, numbers=("s", "share", "peak MB"))
    if not profile.shapes:
        return
    flops, rate = profile.dense_flops(model.networks[0]), gemm_rate(model.device, torch_dtype(precision))
    flops *= math.prod(model.views)
    floor = flops / rate
    echo(
        f"backbone, FPN and RPN: {flops / _GIGA:.0f} GFLOP in {profile.dense_seconds:.2f} s; this machine's matrix "
        f"products reach {rate / _GIGA:.0f} GFLOP/s in {precision}, which would be {floor:.2f} s "
        f"({floor / profile.dense_seconds:.0%} of the limit)"
    )

"""Which variants are tried, which one is chosen; what they are worth is made up here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmaskrcnn.compression.search import candidates
from medmaskrcnn.compression.search.candidates import runtimes, search
from medmaskrcnn.compression.search.measure import times_as_fast
from medmaskrcnn.compression.search.report import MEASURED, Measured, draw_trade_offs, write_table
from medmaskrcnn.compression.search.variant import ORIGINAL, Variant, VariantResult, allowed, best_trade_offs
from medmaskrcnn.errors import OutputError, ReadError

BF16, INT8 = Variant("torch", "bf16"), Variant("openvino", "int8")
RUNTIMES = [ORIGINAL, BF16, INT8]
SPEED = {"fp32": 1.0, "bf16": 2.0, "int8": 4.0}
LOSS = {"fp32": 0.0, "bf16": 0.001, "int8": 0.005}


def worth(variant: Variant, *, per_part: float = 0.0015, pruned: float = 0.0) -> VariantResult:
    """Fewer proposals and fewer channels are faster, and lose something."""
    parts = 1 if variant.proposals is None else 800 / variant.proposals
    times = SPEED[variant.precision] * (1 + 0.1 * parts) * (1 + variant.pruned)
    lost = LOSS[variant.precision] + per_part * (parts - 1) + (pruned if variant.pruned else 0.0)
    return VariantResult(variant, 1 / times, times, 0.8 - lost)


def tried(most: float, shares: tuple[float, ...] = (), **how: float) -> list[VariantResult]:
    outcomes: list[VariantResult] = []

    def measure(variant: Variant) -> VariantResult:
        outcomes.append(worth(variant, **how))
        return outcomes[-1]

    search(RUNTIMES, 800, shares, most, measure)
    return outcomes


def test_fewer_proposals_are_tried_until_they_cost_too_much() -> None:
    found = tried(0.01)
    assert [o.variant.proposals for o in found] == [None, None, None, 400, 200, 100, 141]
    assert all(o.variant.precision == "int8" for o in found[3:])
    assert allowed(found, 0.01)[0].variant == Variant("openvino", "int8", 200)  # 100 lose 0.005 + 0.0105


def test_a_runtime_that_loses_too_much_is_not_gone_on_with() -> None:
    found = tried(0.003)
    assert {o.variant.precision for o in found[3:]} == {"bf16"}
    assert allowed(found, 0.003)[0].variant == Variant("torch", "bf16", 400)


def test_between_a_number_that_does_and_one_that_does_not_one_more_is_tried() -> None:
    found = tried(0.0062)
    assert [o.variant.proposals for o in found[3:]] == [400, 566]
    assert allowed(found, 0.0062)[0].variant == Variant("openvino", "int8", 566)


def test_pruned_networks_run_as_the_fastest_whole_ones_did() -> None:
    found = tried(0.01, (0.25, 0.5), pruned=0.001)
    pruned = [o.variant for o in found if o.variant.pruned]
    assert [(v.precision, v.proposals, v.pruned) for v in pruned] == [
        ("int8", 200, 0.25), ("int8", None, 0.25), ("bf16", 200, 0.25),
        ("int8", 200, 0.5), ("int8", None, 0.5), ("bf16", 200, 0.5),
    ]  # fmt: skip
    assert allowed(found, 0.02)[0].variant.pruned == 0.5
    assert not allowed(tried(0.01, (0.5,), pruned=0.1), 0.01)[0].variant.pruned


def test_where_all_others_lose_too_much_or_fail_the_original_stays() -> None:
    def measure(variant: Variant) -> VariantResult:
        outcomes.append(worth(variant) if variant in RUNTIMES[:2] else VariantResult(variant, error="broken"))
        return outcomes[-1]

    outcomes: list[VariantResult] = []
    search(RUNTIMES, 800, (), 0.0, measure)
    assert [o.variant for o in allowed(outcomes, 0.0)] == [ORIGINAL]
    assert outcomes[2].loss(outcomes[0]) is None


def test_few_proposals_are_not_made_fewer() -> None:
    outcomes = []
    search(RUNTIMES, 39, (), 1.0, lambda v: outcomes.append(worth(v)) or outcomes[-1])
    assert len(outcomes) == 3


def test_the_front_holds_what_none_beats_in_both() -> None:
    outcomes = [
        VariantResult(ORIGINAL, 1.0, 1.0, 0.80),
        VariantResult(BF16, 0.5, 2.0, 0.79),
        VariantResult(Variant("openvino", "fp32"), 0.6, 1.7, 0.78),
        VariantResult(INT8, 0.25, 4.0, 0.79),
        VariantResult(Variant("torch", "bf16", 10), error="broken"),
    ]
    assert [o.variant for o in best_trade_offs(outcomes)] == [INT8, ORIGINAL]


def test_speed_is_compared_pair_by_pair() -> None:
    assert times_as_fast([1.0, 8.0, 1.2], [0.5, 4.0, 0.3]) == 2.0


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(candidates, "find_spec", lambda name: None if name == "nncf" else name)
    found, left_out = runtimes("cpu")
    assert [v.name for v in found] == ["torch fp32", "torch bf16", "openvino fp32", "openvino bf16"]
    assert len(left_out) == 1 and 'pip install "medmaskrcnn[openvino]"' in left_out[0]
    monkeypatch.setattr(candidates, "find_spec", lambda name: None)
    monkeypatch.setattr(candidates, "multiplies_bf16", lambda: False)
    found, left_out = runtimes("cpu")
    assert found == [ORIGINAL] and len(left_out) == 2
    assert [v.name for v in runtimes("gpu")[0]] == [
        "torch fp32", "torch bf16", "torch-compile fp32", "torch-compile bf16",
    ]  # fmt: skip


def test_measurements_are_found_again_but_failures_are_tried_anew(tmp_path: Path) -> None:
    first = Measured(tmp_path / "search", {"model": "a"})
    first.add(worth(ORIGINAL))
    first.add(VariantResult(INT8, error="broken"))
    again = Measured(tmp_path / "search", {"model": "a"})
    assert again.of(ORIGINAL) == worth(ORIGINAL) and again.of(INT8) is None
    with pytest.raises(OutputError, match=r"another search \(model differ\)"):
        Measured(tmp_path / "search", {"model": "b"})
    (tmp_path / "search" / MEASURED).write_text("{")
    with pytest.raises(ReadError, match="remove the folder"):
        Measured(tmp_path / "search", {"model": "a"})


def test_table_and_plot(tmp_path: Path) -> None:
    outcomes = [worth(ORIGINAL), worth(INT8), VariantResult(BF16, error="broken")]
    write_table(outcomes, tmp_path / "variants.csv")
    rows = (tmp_path / "variants.csv").read_text().splitlines()
    assert rows[2].startswith("openvino int8,0.0,openvino,int8,,") and rows[3].endswith(",broken")
    draw_trade_offs(outcomes, 0.01, outcomes[1], tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert json.dumps(outcomes[0].variant.name) == '"torch fp32"'

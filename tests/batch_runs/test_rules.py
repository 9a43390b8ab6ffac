"""Rules: what they take, what they leave, and how they tell of their mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.rules import Rules, read_rules
from medmaskrcnn.errors import ReadError

THICK = FoundSeries(
    identity="thick", verdict="queued", reason=None, files=(), fingerprint="", patient="p", study="one", name="",
    modality="CT", description="Abdomen 5.0 B30f", kernel="B30f", slices=60,
)  # fmt: skip
THIN = replace(THICK, identity="thin", description="ABDOMEN thin", kernel="B70f", slices=400)
HEAD = replace(THICK, identity="head", study="two", description="Head", slices=30)
MR = replace(THICK, identity="mr", study="two", modality="MR", description="T1 vibe", kernel="", slices=80)
ALL = [THICK, THIN, HEAD, MR]


def taken(text: str, tmp_path: Path) -> set[str]:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    return {series.identity for series in ALL} - set(read_rules(file).left_out(ALL))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"thick", "thin", "head", "mr"}),
        ("take: [{modality: CT}]", {"thick", "thin", "head"}),
        ("take: [{modality: [CT, MR], slices: {min: 60, max: 100}}]", {"thick", "mr"}),
        ("take: [{description: abdomen}]", {"thick", "thin"}),
        ("take: [{description: abdomen, kernel: '^B[23]'}]", {"thick"}),
        ("take: [{description: head}, {modality: MR}]", {"head", "mr"}),
        ("leave: [{description: thin|head}]", {"thick", "mr"}),
        ("take: [{modality: CT}]\nleave: [{kernel: B70}]", {"thick", "head"}),
        ("per_study: 1", {"thin", "mr"}),
        ("leave: [{slices: {min: 100}}]\nper_study: 1", {"thick", "mr"}),
    ],
)
def test_what_rules_take(text: str, expected: set[str], tmp_path: Path):
    assert taken(text, tmp_path) == expected


def test_reasons_name_the_rule_and_quote_no_description():
    rules = Rules.model_validate({"take": [{"modality": "CT"}], "leave": [{"kernel": "x"}, {"description": "thin"}]})
    reasons = rules.left_out(ALL)
    assert "leave, entry 2" in reasons["thin"]
    assert "no entry of take" in reasons["mr"]
    assert not any("vibe" in reason or "ABDOMEN" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("take: [{modallity: CT}]", "take.0.modallity"),
        ("take: [{description: '('}]", "no regular expression"),
        ("take: [{}]", "at least one of"),
        ("take: [{slices: {min: 9, max: 3}}]", "min must not be above max"),
        ("take: [", "no YAML"),
        ("per_study: 0", "per_study"),
        ("- CT", "do not fit"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str, tmp_path: Path):
    with pytest.raises(ReadError, match=r"rules\.yaml") as caught:
        taken(text, tmp_path)
    assert told in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(ReadError, match="cannot read the rules"):
        read_rules(tmp_path / "none.yaml")

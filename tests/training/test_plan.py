"""Plans: written and read back, wrong ones named by their keys, those that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medmaskrcnn.errors import ReadError
from medmaskrcnn.training.plan import Plan, parse_plan, plan_text, read_plan, shipped_plans


@pytest.mark.parametrize("name", sorted(shipped_plans()))
def test_plans_that_ship_come_back_from_their_text(name: str) -> None:
    plan = read_plan(name)
    assert plan.card.name and plan.settings.model.class_names
    assert (
        parse_plan(plan_text(plan, {"train.steps": "a reason\non two lines", "model": "another"}, head="Head")) == plan
    )


def test_reasons_stand_above_their_values() -> None:
    text = plan_text(read_plan("nuclei"), {"preprocess.percentiles": "because"}, head="Plan of nuclei")
    lines = text.splitlines()
    assert lines[0] == "# Plan of nuclei"
    place = lines.index("  # because")
    assert lines[place + 1].startswith("  percentiles: [")
    assert yaml.safe_load(text)["preprocess"]["percentiles"] == [1.0, 99.5]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 5000", "stepz: 5000", r"train\.stepz: Extra inputs"),
        ("batch: 4", "batch: 0", r"train\.batch: Input should be greater"),
        ("patch: [1, 320, 320]", "patch: [3, 320, 320]", "of a 2D model is one slice deep"),
        ("oversampled_class: null", "oversampled_class: heart", "names 'heart', which model.class_names lacks"),
        ("card:", "card: [", "is no YAML"),
    ],
)
def test_a_wrong_plan_is_told_by_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = plan_text(read_plan("nuclei"))
    assert old in text
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ReadError, match=message) as caught:
        read_plan(path)
    assert str(path) in str(caught.value)


def test_a_missing_plan_is_told_with_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="plans that ship: abdomen-mr"):
        read_plan(tmp_path / "none.yaml")


def test_windows_of_two_sizes_need_a_batch_of_one() -> None:
    values = read_plan("phantom-ct").model_dump()
    values["train"]["batch"] = 2
    with pytest.raises(ValueError, match=r"train\.batch must be 1"):
        Plan.model_validate(values)

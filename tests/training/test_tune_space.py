"""What a search may change: choices and ranges of a plan's values."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.training.plan import read_plan
from medmaskrcnn.training.tune.space import Choices, Range, SearchSpace, changed_plan, read_space, value_at

PLAN = read_plan("nuclei")


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_every_form_is_read(tmp_path: Path) -> None:
    text = """
train.learning_rate: {low: 0.0001, high: 0.01, log: true}
augment.rotate_degrees: {low: 0, high: 20, step: 5}
model.roi.batch_per_image: [32, 64]
model.anchors.ratios: {choices: [[1.0], [0.5, 1.0, 2.0]]}
"""
    space = read_space(space_file(tmp_path, text), PLAN)
    assert space.paths == (
        "train.learning_rate", "augment.rotate_degrees", "model.roi.batch_per_image", "model.anchors.ratios"
    )  # fmt: skip
    assert space.root["model.roi.batch_per_image"] == Choices(choices=(32, 64))
    points = list(space.grid())
    assert len(points) == 3 * 5 * 2 * 2 and points[0] == {
        "train.learning_rate": 0.0001,
        "augment.rotate_degrees": 0,
        "model.roi.batch_per_image": 32,
        "model.anchors.ratios": [1.0],
    }


@pytest.mark.parametrize(
    ("made", "grid"),
    [
        (Range(low=0.001, high=0.1, log=True), [0.001, 0.01, 0.1]),
        (Range(low=0.0, high=1.0, points=5), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Range(low=1, high=10, step=4), [1, 5, 9]),
        (Range(low=0.1, high=0.4, step=0.1), [0.1, 0.2, 0.3, 0.4]),
        (Range(low=1, high=3, points=5), [1, 2, 3]),
        (Range(low=8, high=128, log=True), [8, 32, 128]),
    ],
)
def test_grids_by_hand(made: Range, grid: list[float]) -> None:
    assert made.grid() == pytest.approx(grid)
    assert all(isinstance(value, int) == made.whole for value in made.grid())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no search space: Value error, a search space maps"),
        ("[1, 2]", "is no search space"),
        ("train.steps: {low: 5, high: 2}", "train.steps: Value error, low must be below high, got 5 and 2"),
        ("train.ema_decay: {low: 0, high: 1, log: true}", "begins above 0"),
        ("train.ema_decay: {low: 0, high: 1, step: 2}", "step must be positive and at most high - low"),
        ("train.steps: []", "train.steps"),
        ("train.steps: [5, 5]", "a choice occurs twice"),
        ("train.steps: {low: 1, high: 2, lgo: true}", "train.steps: Extra inputs are not permitted"),
        ("train.steps: {low: 1}", "train.steps: Field required"),
        ("train.step: [5]", "a plan has no value train.step; train has steps, hours"),
        ("model.roi.batch_per_image.x: [5]", "model.roi.batch_per_image is a value itself"),
        ("a: [", "is no YAML"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ReadError, match=problem):
        read_space(space_file(tmp_path, text), PLAN)


def test_a_missing_file_and_a_huge_grid(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="cannot read search space"):
        read_space(tmp_path / "none.yaml", PLAN)
    huge = SearchSpace.model_validate({name: {"low": 0, "high": 100, "step": 1} for name in ("a", "b", "c")})
    with pytest.raises(ReadError, match="this grid has 1,030,301 points"):
        huge.grid()


def test_values_are_changed_and_nothing_else() -> None:
    changed = changed_plan(PLAN, {"train.learning_rate": 0.02, "model.anchors.ratios": [1.0]})
    assert changed.train.learning_rate == 0.02 and changed.model.anchors.ratios == (1.0,)
    assert changed_plan(changed, {"train.learning_rate": PLAN.train.learning_rate,
                                  "model.anchors.ratios": list(PLAN.model.anchors.ratios)}) == PLAN  # fmt: skip
    assert value_at(changed, "model.anchors") == value_at(PLAN, "model.anchors") | {"ratios": [1.0]}
    with pytest.raises(ReadError, match=r"these values make no plan: train\.batch"):
        changed_plan(PLAN, {"train.batch": -1})

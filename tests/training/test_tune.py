"""Searches over a plan with an objective that is known by heart."""

from __future__ import annotations

import csv
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmaskrcnn.errors import MissingExtraError, OutputError
from medmaskrcnn.training.plan import Plan, read_plan
from medmaskrcnn.training.tune import search as tune
from medmaskrcnn.training.tune.search import BEST, PLOT, TABLE, search
from medmaskrcnn.training.tune.space import SearchSpace
from medmaskrcnn.training.tune.table import Trial

pytest.importorskip("optuna")

PLAN = read_plan("nuclei")
RATE, ROTATE, RATIOS = "train.learning_rate", "augment.rotate_degrees", "model.anchors.ratios"
SPACE = SearchSpace.model_validate(
    {RATE: {"low": 1e-4, "high": 1e-2, "log": True}, ROTATE: {"low": 0, "high": 20, "step": 10}}
)
WITH_LISTS = SearchSpace.model_validate({RATIOS: [[1.0], [0.5, 1.0, 2.0]], ROTATE: [0, 10]})


def hill(plan: Plan, folder: Path) -> float:
    """Best at a rate of 0.001 without rotation."""
    return 1.0 - abs(math.log10(plan.train.learning_rate) + 3) - 0.01 * plan.augment.rotate_degrees


def test_a_grid_visits_every_point_once(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def objective(plan: Plan, folder: Path) -> float:
        seen.append((plan.train.learning_rate, plan.augment.rotate_degrees))
        return hill(plan, folder)

    result = search(PLAN, SPACE, objective, tmp_path, trials=100, method="grid")
    assert len(seen) == len(set(seen)) == len(result.trials) == 9
    assert sorted({rate for rate, _ in seen}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert result.best is not None and result.best.values == {RATE: pytest.approx(1e-3), ROTATE: 0}
    assert result.best.score == pytest.approx(1.0)


def test_the_best_plan_is_written_and_is_a_plan(tmp_path: Path) -> None:
    result = search(
        PLAN, WITH_LISTS, lambda plan, folder: len(plan.model.anchors.ratios), tmp_path, trials=4, method="grid"
    )
    assert read_plan(tmp_path / BEST) == result.plan
    assert result.plan is not None and result.plan.model.anchors.ratios == (0.5, 1.0, 2.0)
    text = (tmp_path / BEST).read_text()
    assert text.count("Best of 4 trials: 3.0000") == 1 + len(WITH_LISTS.paths)


def test_table_and_plot(tmp_path: Path) -> None:
    result = search(PLAN, WITH_LISTS, hill, tmp_path, trials=3, method="random")
    with (tmp_path / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["trial", "score", RATIOS, ROTATE, "seconds", "folder", "error"]
    for row, trial in zip(rows, result.trials, strict=True):
        assert float(row["score"]) == pytest.approx(trial.score) and row[RATIOS] == str(trial.values[RATIOS])
        assert (tmp_path / row["folder"]).is_dir()
    with Image.open(tmp_path / PLOT) as picture:
        assert (
            picture.format == "PNG" and min(picture.size) > 200 and len(picture.convert("RGB").getcolors(1 << 20)) > 9
        )


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    told: list[Trial] = []

    def objective(plan: Plan, folder: Path) -> float:
        if plan.augment.rotate_degrees == 10:
            raise FloatingPointError("the loss became nan")
        return math.nan if plan.augment.rotate_degrees == 20 else 0.5

    space = SearchSpace.model_validate({ROTATE: [0, 10, 20], "train.batch": [1, -1]})
    result = search(PLAN, space, objective, tmp_path, trials=6, method="grid", on_event=told.append)
    assert [trial.score for trial in result.trials] == [0.5, None, None, None, None, None]
    assert tuple(told) == result.trials
    errors = [trial.error for trial in told]
    assert errors[0] == "" and "these values make no plan: train.batch" in errors[1]
    assert errors[2] == "FloatingPointError: the loss became nan" and "the score is nan" in errors[4]
    failed = search(
        PLAN, SearchSpace.model_validate({ROTATE: [10]}), objective, tmp_path / "b", trials=2, method="random"
    )
    assert failed.best is None and failed.plan is None and not (tmp_path / "b" / BEST).exists()


def test_the_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = search(PLAN, SPACE, hill, tmp_path, trials=3, method="random")
    count: list[int] = []

    def objective(plan: Plan, folder: Path) -> float:
        count.append(1)
        return hill(plan, folder)

    second = search(PLAN, SPACE, objective, tmp_path, trials=5, method="random")
    assert len(count) == 2 and second.trials[:3] == first.trials and len(second.trials) == 5
    assert len({tuple(trial.values.values()) for trial in second.trials}) == 5, "nothing is drawn twice"
    assert search(PLAN, SPACE, objective, tmp_path, trials=5, method="random").trials == second.trials


def test_tpe_gathers_where_scores_are_good(tmp_path: Path) -> None:
    space = SearchSpace.model_validate({RATE: {"low": 1e-6, "high": 1.0, "log": True}})
    result = search(PLAN, space, hill, tmp_path, trials=25, method="tpe", seed=3)
    off = [abs(math.log10(trial.values[RATE]) + 3) for trial in result.trials]
    assert sum(off[15:]) < 0.6 * sum(off[:10])


@pytest.mark.parametrize("change", ["plan", "space", "method", "steps"])
def test_a_folder_holds_one_search(tmp_path: Path, change: str) -> None:
    search(PLAN, SPACE, hill, tmp_path, trials=1, method="random", conditions={"steps": "100"})
    other = PLAN.model_copy(update={"train": PLAN.train.model_copy(update={"seed": 5})})
    with pytest.raises(OutputError, match=f"a search with another {change}"):
        search(
            other if change == "plan" else PLAN,
            WITH_LISTS if change == "space" else SPACE,
            hill,
            tmp_path,
            trials=2,
            method="tpe" if change == "method" else "random",
            conditions={"steps": "200" if change == "steps" else "100"},
        )


_KILLED = """
import sys
from pathlib import Path
from tune_objective import SPACE, PLAN, objective
from medmaskrcnn.training.tune.search import search
search(PLAN, SPACE, objective, Path(sys.argv[1]), trials=9, method=sys.argv[2])
"""
_OBJECTIVE = """
import os, signal
from medmaskrcnn.training.plan import read_plan
from medmaskrcnn.training.tune.space import SearchSpace

PLAN = read_plan("nuclei")
SPACE = SearchSpace.model_validate({"augment.rotate_degrees": {"low": 0, "high": 80, "step": 10}})

def objective(plan, folder):
    (folder / "begun").open("a").write(f"{plan.augment.rotate_degrees}\\n")
    if len(list(folder.parent.iterdir())) == 3 and len((folder / "begun").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return plan.augment.rotate_degrees
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grid", "random"])
def test_killed_and_taken_up_again(tmp_path: Path, method: str) -> None:
    """The trial that was under way begins anew in its folder with its values; no point of a grid is lost."""
    (tmp_path / "tune_objective.py").write_text(_OBJECTIVE)
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "search"), method]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=240, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=240, text=True)
    assert again.returncode == 0, again.stderr
    with (tmp_path / "search" / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and all(row["error"] == "" for row in rows)
    assert len({row["folder"] for row in rows}) == 9, "the folder of the one that was killed is used again"
    begun = (tmp_path / "search" / "trials" / "0002" / "begun").read_text().split()
    assert len(begun) == 2 and begun[0] == begun[1]
    if method == "grid":
        assert sorted(float(row["score"]) for row in rows) == [10.0 * k for k in range(9)]


@pytest.mark.parametrize(("ending", "starts_again"), [(SystemExit, 3), (KeyboardInterrupt, 6)])
def test_a_trial_that_always_ends_the_process_is_given_up(
    tmp_path: Path, ending: type[BaseException], starts_again: int
) -> None:
    """Unless it was the user who stopped it."""
    starts: list[Path] = []

    def ended(plan: Plan, folder: Path) -> float:
        starts.append(folder)
        raise ending  # passes through, as a kill would end the process

    space = SearchSpace.model_validate({ROTATE: [0]})
    for _ in range(starts_again):
        with pytest.raises(ending):
            search(PLAN, space, ended, tmp_path, trials=1, method="grid")
    assert len(starts) == starts_again and len(set(starts)) == 1
    result = search(PLAN, space, ended if ending is SystemExit else hill, tmp_path, trials=1, method="grid")
    assert len(starts) == starts_again and len(result.trials) == 1
    given_up = "MedMaskRCNNError: broken off 3 times; was memory short?"
    assert result.trials[0].error == (given_up if ending is SystemExit else "")


def test_a_grid_that_was_half_queued_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    queue = optuna.Study.enqueue_trial

    def dies_at_the_third(study: Any, *arguments: Any, **options: Any) -> None:
        if len(study.trials) == 2:
            raise SystemExit
        queue(study, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "enqueue_trial", dies_at_the_third)
        with pytest.raises(SystemExit):
            search(PLAN, WITH_LISTS, hill, tmp_path, trials=9, method="grid")
    result = search(PLAN, WITH_LISTS, hill, tmp_path, trials=9, method="grid")
    assert len({str(trial.values) for trial in result.trials}) == len(result.trials) == 4


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Callable[..., None]:
        raise ImportError(name)

    monkeypatch.setattr(tune, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install \"medmaskrcnn\[tune\]\""):
        search(PLAN, SPACE, hill, tmp_path, trials=1)
    assert not list(tmp_path.iterdir())

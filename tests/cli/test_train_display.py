"""A training as it goes on, where no terminal draws bars: a log tells what is done and how long it will take."""

from __future__ import annotations

import re

import pytest

from medmaskrcnn.cli import train_display
from medmaskrcnn.cli.train_display import TrainDisplay, count_bar, duration
from medmaskrcnn.training.plan import LoopSettings
from medmaskrcnn.training.trainer import StepReport
from medmaskrcnn.training.training_run import Preparing


def report(step: int, steps: int, left: float) -> StepReport:
    return StepReport(step, {"box": 0.5}, 4e-4, 1.0, steps, left)


def test_preparation_is_told_at_its_beginning_now_and_then_and_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(train_display.time, "monotonic", lambda: now)
    with TrainDisplay(LoopSettings(), shown=True) as display:
        for done in range(1, 31):
            now += 2
            display(Preparing(done, 30))
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.split(": ")[1].split()[0]) for line in lines] == [1, 9, 17, 25, 30]
    assert "9 of 30, 42 s left" in lines[1]


def test_checks_are_told_in_a_log_too(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        with count_bar("check", shown=shown) as progress:
            for done in range(1, 4):
                progress(done, 3)
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["check:", "check:"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"hours": 1.0}, "step 43 of about 120, 12 min left"), ({"steps": 120}, "step 43 of 120, 12")],
)
def test_a_step_tells_how_many_there_will_be_and_how_long(
    capsys: pytest.CaptureFixture[str], settings: dict[str, float], said: str
) -> None:
    with TrainDisplay(LoopSettings(**settings), shown=True) as display:
        display(report(43, 120, 717.0))
        display(report(44, 120, 700.0))  # too soon for another line
        display(report(120, 120, 0.0))
    first, last = capsys.readouterr().err.replace("\n", " ").split("step 120")
    assert said in re.sub(r"\s+", " ", first) and "0.0004" in first and "step 44" not in first
    assert "0 s left" in last


def test_durations() -> None:
    assert [duration(s) for s in (0, 89, 120, 3600, 11100)] == ["0 s", "89 s", "2 min", "1 h 0 min", "3 h 5 min"]

"""The learning rate is a function of the share of the run that is done: continuous, low at the end, resumed exactly."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest

from medmaskrcnn.training.checkpoint import TrainingProgress
from medmaskrcnn.training.plan import LoopSettings, parse_plan, plan_text, read_plan
from medmaskrcnn.training.schedule import (
    Clock,
    advance,
    begin,
    is_over,
    look_at_clock,
    schedule,
    seconds_left,
    steps_expected,
)

CLOSE_TO_ZERO = 0.03  # of the peak


def by_steps(settings: LoopSettings) -> list[float]:
    return [schedule(TrainingProgress(step=step), settings) for step in range(settings.steps)]


def by_time(
    settings: LoopSettings,
    *,
    preparation: float,
    step: float,
    validation: float = 0.0,
    every: int = 10**9,
    overhead: float = 0.0,
) -> tuple[list[float], TrainingProgress, list[int]]:
    """Rates of a simulated training: what a step and a validation take in seconds, with noise."""
    random, progress, now = np.random.default_rng(0), TrainingProgress(), preparation
    rates, expected = [], []
    begin(progress, settings, now=now)
    while not is_over(progress, settings):
        rates.append(schedule(progress, settings))
        took = step * random.uniform(0.7, 1.3)
        now += took + overhead * step
        advance(progress, settings, step_seconds=took, now=now)
        expected.append(steps_expected(progress, settings))
        if progress.step % every == 0:
            progress.validation_seconds = validation
            now += validation
            look_at_clock(progress, settings, now=now)
    return rates, progress, expected


def assert_is_a_curve(rates: list[float], *, warmup: float, jump: float) -> None:
    """Rises to the peak within the warm-up, then falls; neighbours are close; ends near zero."""
    top = int(np.argmax(rates))
    assert max(rates) > 0.97 and rates[0] < rates[top]
    assert top / len(rates) == pytest.approx(warmup, abs=0.05)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < jump
    assert 0 < rates[-1] < CLOSE_TO_ZERO


@pytest.mark.parametrize("steps", [60, 500, 5000])
def test_by_steps(steps: int) -> None:
    assert_is_a_curve(by_steps(LoopSettings(steps=steps, warmup_ratio=0.1)), warmup=0.1, jump=0.18)


@pytest.mark.parametrize(("preparation", "step", "validation"), [(0, 1, 0), (400, 1, 0), (200, 3, 45), (60, 7, 60)])
def test_by_time(preparation: float, step: float, validation: float) -> None:
    settings = LoopSettings(hours=0.25, warmup_ratio=0.1)
    rates, progress, _ = by_time(settings, preparation=preparation, step=step, validation=validation, every=50)
    assert_is_a_curve(rates, warmup=0.1, jump=0.2)
    assert 0.93 * 900 - 1.2 * validation < progress.seconds < 900 - validation


@pytest.mark.parametrize("overhead", [0.5, 3.0])
def test_what_is_done_between_steps_does_not_end_it_early(overhead: float) -> None:
    """Validations that take as long as the steps between them, and checkpoints and pictures that take longer."""
    settings = LoopSettings(hours=0.25, warmup_ratio=0.1)
    rates, _, _ = by_time(settings, preparation=60, step=1, overhead=overhead)
    assert_is_a_curve(rates, warmup=0.1, jump=0.2)
    rates, _, expected = by_time(settings, preparation=60, step=1, validation=20, every=20)
    assert_is_a_curve(rates, warmup=0.1, jump=0.2)
    assert abs(expected[200] - len(rates)) < 0.1 * len(rates)


def test_a_gap_does_not_make_the_rate_jump() -> None:
    """A validation of a fifth of the time, and a night between two commands."""
    settings, progress = LoopSettings(hours=1.0, warmup_ratio=0.0), TrainingProgress()
    for step in range(200):
        advance(progress, settings, step_seconds=5.0, now=5.0 * (step + 1))
    before = schedule(progress, settings)
    look_at_clock(progress, settings, now=progress.seconds + 720)
    resumed = TrainingProgress(**dataclasses.asdict(progress))
    assert schedule(progress, settings) == schedule(resumed, settings) == before
    now = resumed.seconds
    advance(resumed, settings, step_seconds=5.0, now=now + 5)
    assert before - schedule(resumed, settings) < 0.01


def test_the_expected_number_of_steps_is_known_soon() -> None:
    _, progress, expected = by_time(LoopSettings(hours=0.25), preparation=100, step=2.0)
    assert progress.step == pytest.approx(400, rel=0.05)
    assert all(abs(e - progress.step) < 0.15 * progress.step for e in expected[20:])
    assert seconds_left(progress, LoopSettings(hours=0.25)) < 2


def test_preparation_that_takes_all_the_time_leaves_one_step() -> None:
    rates, progress, _ = by_time(LoopSettings(hours=0.1), preparation=1000, step=1.0)
    assert len(rates) == progress.step == 1


def test_resumed_by_steps_it_is_the_same_curve() -> None:
    settings = LoopSettings(steps=80, warmup_ratio=0.05)
    progress, whole = TrainingProgress(), by_steps(settings)
    rates = []
    for step in range(80):
        if step == 37:
            progress = TrainingProgress(**dataclasses.asdict(copy.deepcopy(progress)))
        rates.append(schedule(progress, settings))
        advance(progress, settings, step_seconds=1.0, now=float(step))
    assert rates == whole and is_over(progress, settings)


def test_the_clock_goes_on_where_the_checkpoint_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 500.0)
    assert Clock(began=440.0).seconds() == 60.0
    assert Clock(began=440.0, before=1000.0).seconds() == 1060.0


def test_plans_of_0_1_0_mean_what_they_meant() -> None:
    """A number of steps, 50 if none is written, then half a cosine over the others."""
    old = LoopSettings(steps=100, warmup_steps=10)
    rates = by_steps(old)
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert rates[55] == 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * 0.5))
    assert LoopSettings(steps=4000).warmup_steps == 50
    text = plan_text(read_plan("nuclei")).replace("warmup_ratio: 0.01", "warmup_ratio: null")
    assert parse_plan(text).train.warmup_share == read_plan("nuclei").train.warmup_share
    checkpoint = TrainingProgress(step=40, seconds=900.0)  # as 0.1.0 wrote it, half of the time over
    by_clock = LoopSettings(hours=0.5, warmup_ratio=0.0)
    begin(checkpoint, by_clock, now=950.0)
    assert schedule(checkpoint, by_clock) == pytest.approx(0.505)


def test_another_length_has_the_same_share_of_warm_up() -> None:
    """``--steps 60`` with a plan of 5000 steps whose rate rises in 250: it does not end while it still rises."""
    loop = LoopSettings(steps=5000, warmup_steps=250)
    assert_is_a_curve(by_steps(loop.of_length(steps=60)), warmup=0.05, jump=0.4)
    assert loop.of_length(steps=60).warmup_share == pytest.approx(0.05)
    assert loop.of_length(hours=2.0).warmup_share == pytest.approx(0.05)
    assert loop.of_length() is loop and loop.of_length(steps=5000) == loop
    assert loop.of_length(hours=2.0).of_length(steps=60).hours is None
    rates = by_steps(LoopSettings(steps=60, warmup_steps=75))
    assert max(rates) == 1.0 and rates[-1] < CLOSE_TO_ZERO

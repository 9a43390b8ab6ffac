"""Curves of the learning rate: by steps, by time, interrupted and resumed, and of real runs.

    python benchmarks/learning_rate.py --plot benchmarks/results/learning-rate.png
    python benchmarks/learning_rate.py run other-run --plot rates.png

The first panels are computed with the trainer's own schedule and a simulated clock: a quarter of an hour, of which
preparation takes 100 s and each validation 30 s, with steps of 0.5 to 3 s. Grey is the schedule of 0.1.0 for the same
plan: a warm-up of 75 steps, then half a cosine over the steps, or over the time spent in steps. The last panel
shows the column ``learning_rate`` of the runs that are named.

A line of text for each curve says where it peaks, how far apart neighbours are at most, and where it ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmaskrcnn.report.training_tables import LOSSES, read_table
from medmaskrcnn.training.checkpoint import TrainingProgress
from medmaskrcnn.training.plan import LoopSettings
from medmaskrcnn.training.schedule import advance, begin, is_over, look_at_clock, schedule

_PREPARATION, _VALIDATION, _EVERY, _HOURS = 100.0, 30.0, 100, 0.25
_OLD_WARMUP = 75
Curve = list[tuple[float, float]]


def by_steps(steps: int, *, interrupted_at: int | None = None) -> Curve:
    """Rate by step; at ``interrupted_at`` the progress goes through the form that a checkpoint holds."""
    settings, progress, curve = LoopSettings(steps=steps, warmup_ratio=0.03), TrainingProgress(), []
    while not is_over(progress, settings):
        if progress.step == interrupted_at:
            progress = TrainingProgress(**dataclasses.asdict(progress))
        curve.append((float(progress.step), schedule(progress, settings)))
        advance(progress, settings, step_seconds=1.0, now=progress.seconds + 1)
    return curve


def by_time(step: float, *, interrupted_at: float = math.inf) -> Curve:
    """Rate by minute; after ``interrupted_at`` seconds a second command takes 40 s to begin."""
    settings, random = LoopSettings(hours=_HOURS, warmup_ratio=0.03), np.random.default_rng(0)
    progress, now, curve = TrainingProgress(), _PREPARATION, []
    begin(progress, settings, now=now)
    while not is_over(progress, settings):
        if now > interrupted_at:
            progress, interrupted_at = TrainingProgress(**dataclasses.asdict(progress)), math.inf
            now += 40
            begin(progress, settings, now=now)
        curve.append((now / 60, schedule(progress, settings)))
        took = step * random.uniform(0.8, 1.2)
        now += took
        advance(progress, settings, step_seconds=took, now=now)
        if progress.step % _EVERY == 0:
            progress.validation_seconds = _VALIDATION
            now += _VALIDATION
            look_at_clock(progress, settings, now=now)
    return curve


def of_0_1_0(*, steps: int = 0, step: float = 1.0) -> Curve:
    """The schedule of 0.1.0, by step, or by minute if ``steps`` is 0."""
    curve, done = [], 0
    while done < steps if steps else done * step < _HOURS * 3600:
        share = (done - _OLD_WARMUP) / max(1, steps - _OLD_WARMUP) if steps else done * step / (_HOURS * 3600)
        fallen = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        at = float(done) if steps else (_PREPARATION + done * step + done // _EVERY * _VALIDATION) / 60
        curve.append((at, (done + 1) / _OLD_WARMUP if done < _OLD_WARMUP else fallen))
        done += 1
    return curve


def draw(axes: Axes, name: str, curve: Curve, **style: object) -> None:
    """Draw a curve and print what it does."""
    places, rates = zip(*curve, strict=True)
    axes.plot(places, rates, label=name, **style)  # type: ignore[arg-type]
    jump = max((abs(a - b) for a, b in pairwise(rates)), default=0.0) / max(rates)
    peak = places[int(np.argmax(rates))]
    print(f"{name:34} peak {max(rates):.4g} at {peak:.4g}, neighbours at most {jump:.3f} of it apart, "
          f"ends at {rates[-1] / max(rates):.3f} of it, {places[-1]:.4g}")  # fmt: skip


def main() -> None:
    """Compute and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of trainings")
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    panels = 4 if options.runs else 3
    figure = Figure(figsize=(9, 2.6 * panels), layout="constrained")
    steps, hours, resumed, *real = figure.subplots(panels, 1)
    old = {"color": "grey", "linewidth": 1}
    draw(steps, "0.1.0: 60 steps", of_0_1_0(steps=60), **old)
    for number in (60, 200):
        draw(steps, f"{number} steps", by_steps(number))
    for seconds in (0.5, 3.0, 15.0):
        draw(hours, f"0.1.0: 0.25 h, {seconds:g} s per step", of_0_1_0(step=seconds), **old)
        draw(hours, f"0.25 h, {seconds:g} s per step", by_time(seconds))
    draw(resumed, "0.25 h", by_time(3.0))
    draw(resumed, "0.25 h, interrupted at 5 min", by_time(3.0, interrupted_at=300), linestyle="--")
    assert by_steps(200, interrupted_at=77) == by_steps(200)
    for folder in options.runs:
        rows = read_table(folder / LOSSES)
        draw(real[0], folder.name, [(row["step"], row["learning_rate"]) for row in rows])
    for axes, label in zip((steps, hours, resumed, *real), ("step", "minute", "minute", "step"), strict=False):
        axes.set(xlabel=label, ylabel="learning rate", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()

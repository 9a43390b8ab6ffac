"""A training in parts: each call goes on from the checkpoint, for a given time."""

from __future__ import annotations

import time
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.run import train
from medmaskrcnn.training.trainer import StepReport
from medmaskrcnn.training.training_run import CHECKPOINT, Event
from medmaskrcnn.training.validate import Validation

_TOLD_EVERY = 50  # steps


def deadline(minutes: float | None) -> float | None:
    """When so many minutes from now are over, by :func:`time.monotonic`; ``None`` for no limit."""
    return None if minutes is None else time.monotonic() + 60 * minutes


def train_in_parts(manifest: Manifest, plan: Plan, run: Path, *, cache: Path, ends: float | None = None) -> Path | None:
    """Train, or go on, until the plan's steps are done or the time is up.

    Args:
        manifest: The cases; they are not checked.
        plan: The same plan in every call.
        run: Folder of the run.
        cache: Folder of prepared cases, which several runs may share.
        ends: Stop and save at this time (:func:`deadline`); no limit by default.

    Returns:
        The last model if the training is over, else ``None``.
    """

    def on_event(event: Event) -> None:
        if isinstance(event, Validation):
            print(f"step {event.step}: {event.scores}", flush=True)
        if isinstance(event, StepReport):
            if event.step % _TOLD_EVERY == 0 or event.step <= 2:
                terms = ", ".join(f"{name} {value:.3f}" for name, value in event.terms.items())
                print(f"step {event.step} of {plan.train.steps}, {event.seconds:.1f} s: {terms}", flush=True)
            if ends is not None and time.monotonic() > ends and event.step < plan.train.steps:
                raise KeyboardInterrupt  # the run saves its checkpoint

    try:
        train(manifest, plan, run, check=False, resume=(run / CHECKPOINT).exists(), cache=cache, on_event=on_event)
    except KeyboardInterrupt:
        if ends is None or time.monotonic() < ends:
            raise
        print(f"{run} is not over; the same command goes on")
        return None
    return run / "last.safetensors"

"""The learning rate over a training, and the clock by which a training with a time budget ends.

The rate rises linearly to its peak and then falls along half a cosine to a hundredth of it (SGDR without restarts,
Loshchilov and Hutter 2017, eq. 5). Where it stands is a share of the run: of the steps, or of the time.

With a time budget the share is not simply the time that has passed: validation, checkpoints and an interruption would
then make the rate jump. Each step moves the share on by the part that it took of the time left for steps. So the rate
is continuous, is at its lowest when the time is up, and a resumed training goes on where the checkpoint stands.
"""

from __future__ import annotations

import math
import time

from medmaskrcnn.training.checkpoint import TrainingProgress
from medmaskrcnn.training.plan import LoopSettings

LOWEST_RATE = 0.01
"""Final learning rate, as a share of the peak."""

_SPARE = 1.2  # of the longest validation so far, kept for the one at the end
_CLOSING = 0.01  # of the time: to write the models and the plot, and to end the program
_LEAST_BUSY = 0.05  # share of the time, however long a validation took
_SPARE_STEPS = 0.5  # a step is not begun if less than this share of its mean duration is left


class Clock:
    """Wall time of a training, over all commands that worked on it.

    Args:
        began: Time in seconds (:func:`time.monotonic`) at which this command began; now if not given.
        before: Seconds that earlier commands took, up to the checkpoint from which this one resumes.
    """

    def __init__(self, began: float | None = None, before: float = 0.0) -> None:
        self.began, self.before = time.monotonic() if began is None else began, before

    def seconds(self) -> float:
        """Seconds that have passed in all."""
        return self.before + time.monotonic() - self.began


def schedule(progress: TrainingProgress, settings: LoopSettings) -> float:
    """Share of the peak learning rate for the next update."""
    if settings.hours is None:
        whole, done, rising = float(settings.steps), float(progress.step), progress.step + 1.0
        warmup = float(min(round(settings.warmup_share * whole), settings.steps - 1))
    else:
        whole, done, warmup = 1.0, share_done(progress, settings), settings.warmup_share
        rising = max(done, LOWEST_RATE * warmup)
    if done < warmup:
        return rising / warmup
    fallen = min(1.0, (done - warmup) / (whole - warmup))
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * fallen))


def share_done(progress: TrainingProgress, settings: LoopSettings) -> float:
    """Share of the training that is done, 0 to 1."""
    if settings.hours is None:
        return progress.step / settings.steps
    return progress.share or 0.0


def seconds_left(progress: TrainingProgress, settings: LoopSettings) -> float:
    """Seconds until the last update, with time kept for the last validation; 0 if the time is up.

    Without a time budget it is an estimate from the updates and validations so far.
    """
    if settings.hours is not None:
        reserve = _SPARE * progress.validation_seconds + _CLOSING * settings.hours * 3600
        return max(0.0, settings.hours * 3600 - progress.seconds - reserve)
    return (settings.steps - progress.step) * progress.step_seconds / _busy(progress)


def steps_expected(progress: TrainingProgress, settings: LoopSettings) -> int:
    """Steps of the whole training: exact, or estimated from the time left."""
    if settings.hours is None:
        return settings.steps
    left = seconds_left(progress, settings) * _busy(progress)
    return progress.step + round(left / max(progress.step_seconds, 1e-9))


def begin(progress: TrainingProgress, settings: LoopSettings, *, now: float) -> None:
    """Record that updates begin (again) after ``now`` seconds in all (:meth:`Clock.seconds`)."""
    if settings.hours is not None and progress.share is None and progress.step:
        # A checkpoint of 0.1.0, where the rate followed the time spent on steps.
        progress.share = min(1.0, progress.seconds / (settings.hours * 3600))
    progress.seconds = now


def advance(progress: TrainingProgress, settings: LoopSettings, *, step_seconds: float, now: float) -> None:
    """Record an update.

    Args:
        progress: The progress, which is changed.
        settings: The plan's loop.
        step_seconds: Duration of the update.
        now: Seconds that have passed in all (:meth:`Clock.seconds`) after the update.
    """
    done = share_done(progress, settings)
    progress.step += 1
    progress.learning_seconds += step_seconds
    steady = min(0.9, 1 - 1 / progress.step)  # the first steps are averaged, later ones weigh a tenth each
    progress.step_seconds = steady * progress.step_seconds + (1 - steady) * step_seconds
    look_at_clock(progress, settings, now=now)
    if settings.hours is not None and progress.share != 1.0:
        left = seconds_left(progress, settings) * _busy(progress)
        progress.share = done + (1 - done) * step_seconds / (left + step_seconds)


def look_at_clock(progress: TrainingProgress, settings: LoopSettings, *, now: float) -> None:
    """Record the time; if no further update fits in a time budget, the training is done.

    Args:
        progress: The progress, which is changed.
        settings: The plan's loop.
        now: Seconds that have passed in all (:meth:`Clock.seconds`).
    """
    progress.loop_seconds += now - progress.seconds
    progress.seconds = now
    if settings.hours is not None and seconds_left(progress, settings) <= _SPARE_STEPS * progress.step_seconds:
        progress.share = 1.0


def _busy(progress: TrainingProgress) -> float:
    """Share of the time that updates take; the others go to validations and checkpoints."""
    if not progress.loop_seconds:
        return 1.0
    return min(1.0, max(_LEAST_BUSY, progress.learning_seconds / progress.loop_seconds))


def is_over(progress: TrainingProgress, settings: LoopSettings) -> bool:
    """True when all steps are done, the time is up, or validation has not improved for ``patience`` epochs."""
    if settings.patience is not None and progress.epochs_since_best >= settings.patience:
        return True
    return share_done(progress, settings) >= 1

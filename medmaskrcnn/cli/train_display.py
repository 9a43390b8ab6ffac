"""A training as it goes on: bars, losses, scores. Without a terminal: a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medmaskrcnn.cli.console import ERR, plain

if TYPE_CHECKING:
    from medmaskrcnn.training.plan import LoopSettings
    from medmaskrcnn.training.training_run import Event

_LINE_SECONDS = 60.0  # between lines where nothing can be drawn
_COUNT_SECONDS = 15.0  # the same while cases are checked and prepared
_SMOOTHING = 0.95  # of the losses shown: each counts as a mean of some twenty steps


@contextmanager
def count_bar(title: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress on stderr, fed with (done, total): a bar on a terminal, a line now and then elsewhere."""
    if not shown:
        yield lambda done, total: None
    elif not ERR.is_terminal:
        yield CountLines(title)
    else:
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )  # fmt: skip
        with Progress(*columns, console=ERR, transient=True) as progress:
            task = progress.add_task(plain(title), total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


class CountLines:
    """Progress as lines in a log: after the first, after the last, and every quarter of a minute between.

    Args:
        title: What is being done.
    """

    def __init__(self, title: str) -> None:
        self.title, self.began, self.line_at = title, time.monotonic(), -_COUNT_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` are done."""
        now = time.monotonic()
        if done < total and now - self.line_at < _COUNT_SECONDS:
            return
        self.line_at = now
        left = (now - self.began) / max(done, 1) * (total - done)
        ERR.print(plain(f"{self.title}: {done} of {total}{f', {duration(left)} left' if done < total else ''}"))


def duration(seconds: float) -> str:
    """A time to wait: ``40 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class TrainDisplay:
    """Shows what :func:`medmaskrcnn.training.run.train` tells; a context that is called with each event.

    Args:
        settings: Whether the training ends by steps or by time.
        shown: Show anything at all.
    """

    def __init__(self, settings: LoopSettings, *, shown: bool) -> None:
        self.settings, self.shown = settings, shown
        self.drawn = shown and ERR.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[at]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
        )
        self.progress = Progress(*columns, console=ERR)
        self.tasks: dict[str, Any] = {}
        self.losses: dict[str, float] = {}
        self.line_at = -_LINE_SECONDS
        self.prepared = CountLines("prepare cases")

    def __enter__(self) -> TrainDisplay:
        if self.drawn:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.drawn:
            self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.shown:
            getattr(self, f"_{type(event).__name__.lower()}")(event)

    def _preparing(self, event: Any) -> None:
        self._bar("prepare cases", event.done, event.total, f"{event.done}/{event.total}")
        if not self.drawn:
            self.prepared(event.done, event.total)

    def _transferreport(self, event: Any) -> None:
        self._line(f"first weights from {event.source}")
        for line in event.lines():
            self._line(f"  {line}")

    def _stepreport(self, event: Any) -> None:
        for name, value in {"total": event.total, **event.terms}.items():
            self.losses[name] = _SMOOTHING * self.losses.get(name, value) + (1 - _SMOOTHING) * value
        text = "  ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        about = "about " if self.settings.hours else ""
        at = f"step {event.step} of {about}{event.steps}, {duration(event.seconds_left)} left"
        self._bar("train", event.step, event.steps, at, text)
        is_last = event.step >= event.steps
        if not self.drawn and (is_last or time.monotonic() - self.line_at > _LINE_SECONDS):
            self.line_at = time.monotonic()
            self._line(f"{at}  {text}  ({event.seconds:.2f} s per step, learning rate {event.learning_rate:.2g})")

    def _validation(self, event: Any) -> None:
        scores = "  ".join(f"{name} {value:.3f}" for name, value in event.scores.items())
        self._line(f"step {event.step}  validation on {event.cases} cases  {scores}")

    def _bar(self, name: str, done: float, total: float, at: str, losses: str = "") -> None:
        if not self.drawn:
            return
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, at=at, losses=losses)
        self.progress.update(self.tasks[name], completed=done, total=total, at=at, losses=losses)

    def _line(self, text: str) -> None:
        (self.progress.console if self.drawn else ERR).print(plain(text))

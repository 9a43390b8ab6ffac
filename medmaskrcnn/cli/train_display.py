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
_SMOOTHING = 0.95  # of the losses shown: each counts as a mean of some twenty steps


@contextmanager
def count_bar(title: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, fed with (done, total)."""
    if not (shown and ERR.is_terminal):
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, transient=True) as progress:
        task = progress.add_task(plain(title), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class TrainDisplay:
    """Shows what :func:`medmaskrcnn.training.run.train` tells; a context that is called with each event.

    Args:
        settings: How long the training is to be.
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
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
        )
        self.progress = Progress(*columns, console=ERR)
        self.tasks: dict[str, Any] = {}
        self.losses: dict[str, float] = {}
        self.seconds, self.line_at = 0.0, 0.0

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

    def _transferreport(self, event: Any) -> None:
        self._line(f"first weights from {event.source}")
        for line in event.lines():
            self._line(f"  {line}")

    def _stepreport(self, event: Any) -> None:
        self.seconds += event.seconds
        for name, value in {"total": event.total, **event.terms}.items():
            self.losses[name] = _SMOOTHING * self.losses.get(name, value) + (1 - _SMOOTHING) * value
        text = "  ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        hours, steps = self.settings.hours, self.settings.steps
        done, total = (self.seconds, hours * 3600) if hours else (float(event.step), float(steps))
        self._bar("train", done, total, f"step {event.step}" if hours else f"{event.step}/{steps}", text)
        if not self.drawn and time.monotonic() - self.line_at > _LINE_SECONDS:
            self.line_at = time.monotonic()
            self._line(f"step {event.step}  {text}  ({event.seconds:.2f} s a step)")

    def _validation(self, event: Any) -> None:
        scores = "  ".join(f"{name} {value:.3f}" for name, value in event.scores.items())
        self._line(f"step {event.step}  validation  {scores}")

    def _bar(self, name: str, done: float, total: float, at: str, losses: str = "") -> None:
        if not self.drawn:
            return
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, at=at, losses=losses)
        self.progress.update(self.tasks[name], completed=done, total=total, at=at, losses=losses)

    def _line(self, text: str) -> None:
        (self.progress.console if self.drawn else ERR).print(plain(text))

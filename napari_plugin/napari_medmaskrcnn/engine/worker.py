"""Runs jobs of the engine on a thread, with Qt signals, napari's activity dock and the remaining time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from napari.utils import progress as activity
from qtpy.QtCore import QObject, Signal

from napari_medmaskrcnn.engine.client import Cancelled, Engine, JobFailed
from napari_medmaskrcnn.engine.messages import Job, JobProgress

_STAGES = {"load model": 0.02, "read": 0.0, "prepare": 0.08, "find": 0.8, "measure": 0.1}
"""Share of the whole time that each stage takes, roughly; in their order."""

_WORDS = {
    "load model": "loading the model",
    "read": "reading",
    "prepare": "preparing the scan",
    "find": "looking for instances",
    "measure": "measuring",
}


class Worker(QObject):
    """Runs one job at a time; signals arrive on the receiver's thread.

    Args:
        engine: The process that runs the jobs.
        parent: Qt parent object.
    """

    progressed = Signal(float, str)
    """Share of the whole, 0..1, and a sentence for the user."""
    finished = Signal(object)
    failed = Signal(str, str)
    """What to tell the user, and details ("" if there are none)."""
    cancelled = Signal()
    _reported = Signal(object)
    _ended = Signal(object, object)

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._thread: threading.Thread | None = None
        self._activity: Any = None
        self._began = 0.0
        self._reported.connect(self._on_report)
        self._ended.connect(self._on_end)

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._thread is not None

    def start(self, job: Job, what: str) -> None:
        """Start a job; ``what`` names it in the activity dock.

        Raises:
            RuntimeError: if one is running.
        """
        if self.busy:
            raise RuntimeError("a job is running already")
        self._began = time.monotonic()
        self._activity = activity(total=100, desc=what)
        self._thread = threading.Thread(target=self._run, args=(job,), name="medmaskrcnn", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End the job immediately, by ending the process with everything it holds."""
        if self.busy:
            self._engine.stop()

    def _run(self, job: Job) -> None:
        answer, failure = None, None
        try:
            answer = self._engine.run(job, self._reported.emit)
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the panel was closed meanwhile, and Qt has deleted this object
            self._ended.emit(answer, failure)

    def _on_report(self, message: JobProgress) -> None:
        if not self.busy:
            return
        share = whole_share(message)
        words = _WORDS.get(message.stage, message.stage)
        left = time_left(time.monotonic() - self._began, share)
        text = f"{words}, {left}" if left else words
        if self._activity is not None:
            self._activity.n = round(100 * share)
            self._activity.update(0)
        self.progressed.emit(share, text)

    def _on_end(self, answer: object, error: Exception | None) -> None:
        self._thread = None
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        if error is None:
            self.finished.emit(answer)
        elif isinstance(error, Cancelled):
            self.cancelled.emit()
        elif isinstance(error, JobFailed):
            self.failed.emit(str(error), error.details)
        else:
            self.failed.emit(f"Something unforeseen went wrong: {type(error).__name__}: {error}", "")


def whole_share(message: JobProgress) -> float:
    """The completed share of the whole job, 0..1, from a stage's share."""
    done = 0.0
    for stage, weight in _STAGES.items():
        if stage == message.stage:
            return done + weight * message.share
        done += weight
    return done


def time_left(elapsed_s: float, share: float) -> str:
    """Estimated remaining time in words; "" while it cannot be estimated."""
    if share < 0.15 or elapsed_s < 2:
        return ""
    seconds = elapsed_s * (1 - share) / share
    if seconds < 60:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / 60)} min left"

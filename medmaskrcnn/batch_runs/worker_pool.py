"""Worker processes on this machine: started, given tasks, monitored, and replaced when they die.

A pool distributes tasks and reports how each ended; whether to try again is decided by the run. The pool does decide
which case was the cause: a worker that dies or exceeds its time or memory limit has up to three cases in progress, of
which one was being read, one segmented and one written.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal, Protocol

from medmaskrcnn.batch_runs.settings import Limits
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.system.child_process import ChildProcess
from medmaskrcnn.system.memory import resident_mb
from medmaskrcnn.system.stage_timer import StageTimer

logger = logging.getLogger(__name__)

_IN_HAND = 3
_WAITS = "waits"  # the stage of a case that waits for its next step
_PATIENCE_S = 0.5
_END_S = 10.0
_DEATHS_IN_A_ROW = 3
"""This many deaths in a row before any worker is ready mean that the cause is not a case."""


@dataclass(frozen=True)
class End:
    """How a task ended.

    Attributes:
        id: Id of the task.
        kind: ``"done"``, ``"refused"``, ``"failed"``; ``"died"``: its worker died while processing this case or
            another one, which is found by running each alone; ``"innocent"``: a worker died, but not of this case.
        again: Whether it may succeed if tried again alone.
        no_room: Whether the disk was full.
        details: Traceback of a failure that is not due to the scan.
        remedy: What the user may do about it; a value of :class:`medmaskrcnn.errors.Remedy`.
    """

    id: int
    kind: Literal["done", "refused", "failed", "died", "innocent"]
    reason: str | None = None
    seconds: float | None = None
    outcome: dict[str, Any] = field(default_factory=dict)
    again: bool = False
    no_room: bool = False
    details: str | None = None
    remedy: str | None = None


class WorkerPool(Protocol):
    """Processes tasks: with processes on this machine, or on a Dask cluster."""

    def has_capacity(self, *, alone: bool) -> bool:
        """Whether a task can be submitted now; ``alone``: one that needs a worker to itself."""

    def submit(self, task: Task, *, alone: bool) -> None:
        """Submit a task."""

    def ends(self, timeout_s: float) -> list[End]:
        """Tasks that have ended; waits at most ``timeout_s`` for the first."""

    def close(self, *, at_once: bool) -> None:
        """Stop the workers, or kill them at once."""


@dataclass(frozen=True)
class Setup:
    """Settings that every worker needs before the first case."""

    model: str
    sha256: str
    options: SegmentOptions = AS_THE_MODEL_SAYS
    threads: int = 1


@dataclass(eq=False)
class _InHand:
    task: Task
    stage: str = _WAITS
    timer: StageTimer = field(default_factory=StageTimer)

    def enter_stage(self, stage: str) -> None:
        self.timer.end(self.stage)
        self.stage = stage

    def active_s(self) -> float:
        """Seconds spent on the case so far, without waiting."""
        earlier = sum(seconds for stage, seconds in self.timer.seconds.items() if stage != _WAITS)
        return earlier + (self.timer.running_s if self.stage != _WAITS else 0.0)


class _Worker:
    """One worker process and its cases in progress."""

    def __init__(self, setup: Setup, index: int, heard: Callable[[_Worker, dict[str, Any] | None], None]) -> None:
        self.process = ChildProcess("medmaskrcnn.batch_runs.worker", quiet=True)
        self.in_hand: dict[int, _InHand] = {}
        self.alone = False
        self.ready = False
        self.index = index
        self.killed_for: tuple[int | None, str] | None = None
        Thread(target=self._listen, args=(heard,), daemon=True).start()
        self.send(setup={**vars(setup), "options": setup.options.model_dump(mode="json"), "index": index})

    def send(self, **message: Any) -> None:
        """Send a message; the death of a worker is detected by :meth:`_listen`, not here."""
        try:
            self.process.send(message)
        except (OSError, ValueError):
            logger.info("worker %d is gone", self.process.pid)

    def _listen(self, heard: Callable[[_Worker, dict[str, Any] | None], None]) -> None:
        with suppress(EOFError, OSError, ValueError):  # the worker has died, perhaps in the middle of a message
            while True:
                heard(self, self.process.receive()[0])
        heard(self, None)

    def end(self, *, at_once: bool) -> None:
        """Ask the process to stop, and kill it if it does not."""
        if not at_once:
            self.send(stop=True)
        self.process.close(patience_s=0.0 if at_once else _END_S)


class LocalWorkerPool:
    """Worker processes on this machine.

    Args:
        setup: Setup of every worker.
        n_workers: Number of workers.
        limits: Limits for one case.
    """

    def __init__(self, setup: Setup, n_workers: int, limits: Limits) -> None:
        if limits.memory_mb is not None and resident_mb(os.getpid()) is None:
            raise ValueError("a memory limit needs psutil on this system: pip install psutil")
        self._setup, self._limits = setup, limits
        self._heard: SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = SimpleQueue()
        self._workers = [self._start_worker(i) for i in range(n_workers)]
        self._deaths = 0

    def _start_worker(self, index: int) -> _Worker:
        return _Worker(self._setup, index, lambda worker, message: self._heard.put((worker, message)))

    def has_capacity(self, *, alone: bool) -> bool:
        """See :class:`WorkerPool`."""
        return self._free(alone) is not None

    def _free(self, alone: bool) -> _Worker | None:
        free = [w for w in self._workers if not w.alone and len(w.in_hand) < (1 if alone else _IN_HAND)]
        return min(free, key=lambda w: len(w.in_hand), default=None)

    def submit(self, task: Task, *, alone: bool) -> None:
        """See :class:`WorkerPool`."""
        worker = self._free(alone)
        if worker is None:
            raise ValueError("no worker takes a task now; ask has_capacity() first")
        worker.alone = alone
        worker.in_hand[task.id] = _InHand(task)
        worker.send(task=task.to_json())

    def ends(self, timeout_s: float) -> list[End]:
        """See :class:`WorkerPool`.

        Raises:
            MedMaskRCNNError: if workers cannot use the model, or die one after the other.
        """
        ends: list[End] = []
        deadline = time.monotonic() + timeout_s
        while not ends and (left := deadline - time.monotonic()) > 0:
            try:
                heard = self._heard.get(timeout=min(left, _PATIENCE_S))
            except Empty:
                pass
            else:
                ends += self._understood(*heard)
            self._check_limits()
        return ends

    def _understood(self, worker: _Worker, message: dict[str, Any] | None) -> list[End]:
        if message is None:
            return self._on_exit(worker)
        if "unusable" in message:
            raise MedMaskRCNNError(message["unusable"])
        if "ready" in message:
            worker.ready = True
            self._deaths = 0
        elif "stage" in message:
            id_, stage = message["stage"]
            worker.in_hand[id_].enter_stage(stage)
        elif "end" in message:
            told = message["end"]
            del worker.in_hand[told["id"]]
            worker.alone = False
            return [End(kind=told.pop("status"), **{"id": told.pop("id")}, **told)]
        return []

    def _on_exit(self, worker: _Worker) -> list[End]:
        """Replace a worker that has died, and report the ends of its cases."""
        code = worker.process.wait()
        self._deaths += not worker.ready
        if self._deaths >= _DEATHS_IN_A_ROW:
            raise MedMaskRCNNError(
                f"{self._deaths} workers died before their first case ({_how(code)}). See what this says: "
                'python -c "import medmaskrcnn.batch_runs.steps"'
            )
        worker.end(at_once=True)
        self._workers[self._workers.index(worker)] = self._start_worker(worker.index)
        guilty, reason = worker.killed_for or (None, f"the worker died ({_how(code)})")
        ends = []
        for id_, case in worker.in_hand.items():
            if id_ == guilty:
                ends.append(End(id_, "failed", reason, round(case.active_s(), 3)))
            else:
                at_work = case.stage != _WAITS and guilty is None
                ends.append(End(id_, "died" if at_work else "innocent", reason))
        return ends

    def _check_limits(self) -> None:
        for worker in self._workers:
            if worker.killed_for is None and (blame := self._too_much(worker)) is not None:
                worker.killed_for = blame
                worker.process.kill()

    def _too_much(self, worker: _Worker) -> tuple[int | None, str] | None:
        """The case that exceeds a limit, if known, and the reason."""
        limits = self._limits
        active = [case for case in worker.in_hand.values() if case.stage != _WAITS]
        for case in active:
            if limits.seconds is not None and case.active_s() > limits.seconds:
                return case.task.id, f"took longer than the {limits.seconds:g} s allowed, at the step: {case.stage}"
        if limits.memory_mb is None or not active:
            return None
        used = resident_mb(worker.process.pid) or 0.0
        if used <= limits.memory_mb:
            return None
        reason = f"took {used:.0f} MB of memory, more than the {limits.memory_mb:g} allowed"
        return (active[0].task.id if len(worker.in_hand) == 1 else None), reason  # else found by running each alone

    def close(self, *, at_once: bool) -> None:
        """See :class:`WorkerPool`."""
        if not at_once:
            for worker in self._workers:
                worker.send(stop=True)
        for worker in self._workers:
            worker.end(at_once=at_once)


def _how(code: int) -> str:
    """How a process died, from its exit code."""
    if code == -9:
        return "killed by signal 9, perhaps for want of memory"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def threads_of(n_workers: int) -> int:
    """Threads per worker: an equal share of the cores, or the value of ``OMP_NUM_THREADS``."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // n_workers)

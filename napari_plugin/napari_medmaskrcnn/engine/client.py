"""Runs networks in a process of their own, so that the viewer stays responsive and cancelling is immediate.

A thread would share one interpreter with the viewer, and a network cannot be stopped in the middle of a layer. A
process can be ended at any moment, which frees its memory (:mod:`medmaskrcnn.system.child_process`).

Jobs and answers are the messages of :mod:`.ipc`. A scan is sent once and kept by the process until another is sent.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from medmaskrcnn.errors import with_remedy
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.child_process import ChildProcess
from napari_medmaskrcnn.core.remedies import IN_NAPARI
from napari_medmaskrcnn.engine import ipc
from napari_medmaskrcnn.engine.messages import Done, Failed, Job, JobProgress, Ready

MODULE = "napari_medmaskrcnn.engine.process"
_SHUTDOWN_S = 2.0


class Cancelled(Exception):
    """The process was ended while the job was running."""


class JobFailed(Exception):
    """The job failed; the message is for the user.

    Attributes:
        details: A traceback, if the failure was unexpected.
    """

    def __init__(self, failed: Failed) -> None:
        super().__init__(with_remedy(failed.message, failed.remedy, IN_NAPARI))
        self.details = failed.details


class Engine:
    """One process, started when needed and kept running: torch and the last model stay loaded between jobs."""

    def __init__(self) -> None:
        self._process: ChildProcess | None = None
        self._sent: Volume | None = None
        self._lock = threading.Lock()
        self.devices: tuple[str, ...] = ("cpu",)

    @property
    def pid(self) -> int | None:
        """Process id, ``None`` while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def warm_up(self) -> None:
        """Start the process, so that the first job need not wait for torch; returns immediately."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._sent = None
                self._process = ChildProcess(MODULE)

    def run(self, job: Job, report: Callable[[JobProgress], None]) -> Any:
        """Run a job; blocks, so call it from a thread.

        Args:
            job: The job.
            report: Called with each step of progress, from this thread.

        Raises:
            Cancelled: if :meth:`stop` was called meanwhile.
            JobFailed: if it failed.
        """
        self.warm_up()
        process = self._process
        assert process is not None
        known = job.volume is self._sent
        try:
            ipc.send(process, replace(job, volume=None) if known else job)
            self._sent = job.volume
            return self._answer(process, report)
        except (EOFError, OSError, ValueError) as error:
            if process is not self._process:
                raise Cancelled from None
            code = _exit_code(process)
            self.stop()
            raise JobFailed(Failed(_death_message(code))) from error

    def _answer(self, process: ChildProcess, report: Callable[[JobProgress], None]) -> Any:
        while True:
            message = ipc.receive(process)
            if isinstance(message, Done):
                return message.answer
            if isinstance(message, Failed):
                raise JobFailed(message)
            if isinstance(message, Ready):
                self.devices = message.devices
            elif isinstance(message, JobProgress):
                report(message)

    def stop(self) -> None:
        """End the process, whatever it is doing; its memory is free when this returns."""
        with self._lock:
            process, self._process, self._sent = self._process, None, None
        if process is not None:
            process.close()


def _exit_code(process: ChildProcess) -> int | None:
    """The exit code of a process that is gone; ``None`` if it hangs and has to be killed."""
    try:
        return process.wait(_SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        return None


def _death_message(code: int | None) -> str:
    if code is None:
        return "The process that runs the network does not answer and was ended. Try again."
    if code in (-9, 137):
        return "The process was ended by the system, most likely for lack of memory. Try a region instead of the scan."
    return f"The process that runs the network ended with code {code}. Try again; the terminal may tell more."

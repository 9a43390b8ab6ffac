"""A worker: a separate program that loads the model once and then processes case after case.

    python -m medmaskrcnn.batch_runs.worker

It receives messages (:mod:`medmaskrcnn.system.child_process`): first ``{"setup": {...}}``, then one ``{"task": {...}}``
per case, finally ``{"stop": true}``. It answers ``{"ready": ...}`` or ``{"unusable": ...}``, ``{"stage": [id, name]}``
and ``{"end": {...}}``. If the messages end without a stop, its parent process has died, and it exits at once. Three
threads run the three steps, so that the next scan is read and the last result written while the network computes:

    read -> (one waits) -> segment -> (one waits) -> write

A result is written into a temporary folder, which is renamed once all of it is on the disk: a folder with a result's
name holds a complete result, even after a power failure.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Any

from medmaskrcnn.batch_runs.reasons import explain, is_memory, is_no_room, is_refusal, remedy_of
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.system.child_process import Channel, channel_to_parent
from medmaskrcnn.system.exceptions import traceback_of
from medmaskrcnn.system.memory import allow_retaining


def main() -> None:
    """Run the worker; see the top of this file."""
    allow_retaining()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent handles it
    parent = channel_to_parent()
    requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    Thread(target=_listen, args=(parent, requests), daemon=True).start()
    setup = requests.get()
    if setup is None:
        return
    try:
        steps = _load(setup["setup"])
    except Exception as error:
        parent.send({"unusable": explain(error, str(setup["setup"]["model"]))})
        return
    parent.send({"ready": os.getpid()})
    _Line(steps, parent).run(requests)


def _listen(parent: Channel, requests: SimpleQueue[dict[str, Any] | None]) -> None:
    with suppress(EOFError, OSError):
        while True:
            request, _ = parent.receive()
            if "stop" in request:
                requests.put(None)
                return
            requests.put(request)
    os._exit(1)  # the parent has died: nobody would record the results


def _load(setup: dict[str, Any]) -> tuple[Callable[..., Any], ...]:
    """Load the model and return the three steps that use it."""
    # imported here because importing torch takes seconds
    import torch

    from medmaskrcnn.batch_runs.steps import Steps

    torch.set_num_threads(max(1, setup["threads"]))
    options = SegmentOptions.model_validate(setup["options"])
    if options.device in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(setup["index"] % torch.cuda.device_count())  # distribute workers over GPUs
    steps = Steps(setup["model"], setup["sha256"], options)
    return steps.read, steps.segment, steps.write


class _Line:
    """A pipeline of three threads, each passing its result to the next."""

    def __init__(self, steps: tuple[Callable[..., Any], ...], parent: Channel) -> None:
        self._parent = parent
        self._names = ("read", "segment", "write")
        self._steps = steps
        self._queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in steps]
        self._room = BoundedSemaphore(2)  # scans read but not yet segmented: bounds memory
        self._began: dict[int, float] = {}

    def run(self, requests: SimpleQueue[dict[str, Any] | None]) -> None:
        threads = [Thread(target=self._work, args=(i,)) for i in (0, 2)]
        for thread in threads:
            thread.start()
        feeder = Thread(target=self._feed, args=(requests,))
        feeder.start()
        self._work(1)  # the network stays in the main thread
        for thread in (feeder, *threads):
            thread.join()

    def _feed(self, requests: SimpleQueue[dict[str, Any] | None]) -> None:
        while (request := requests.get()) is not None:
            self._room.acquire()
            self._queues[0].put((Task.from_json(request["task"]), None))
        self._queues[0].put(None)

    def _work(self, number: int) -> None:
        """Take cases from one queue, run one step, pass them to the next."""
        while (item := self._queues[number].get()) is not None:
            task, made = item
            self._parent.send({"stage": [task.id, self._names[number]]})
            self._began.setdefault(task.id, time.monotonic())
            try:
                made = self._steps[number](task, made)
            except BaseException as error:
                self._end(task, **_failure(error, task))
                made = None
            if number == 1:
                self._room.release()
            if made is None:
                if number == 0:
                    self._room.release()
                continue
            if number == 2:
                self._end(task, status="done", outcome=made)
            else:
                self._parent.send({"stage": [task.id, "waits"]})
                self._queues[number + 1].put((task, made))
            del item, made
        if number < 2:
            self._queues[number + 1].put(None)

    def _end(self, task: Task, **what: Any) -> None:
        seconds = round(time.monotonic() - self._began.pop(task.id), 3)
        self._parent.send({"end": {"id": task.id, "seconds": seconds, **what}})


def _failure(error: BaseException, task: Task) -> dict[str, Any]:
    return {
        "status": "refused" if is_refusal(error) else "failed",
        "reason": explain(error, task.about),
        "remedy": remedy_of(error),
        "again": is_memory(error),
        "no_room": is_no_room(error),
        "details": None if is_refusal(error) else traceback_of(error),
    }


if __name__ == "__main__":
    main()

"""Workers on a Dask cluster: many machines that share the input and output folders.

Each Dask worker starts one of our workers (:mod:`medmaskrcnn.batch_runs.worker_pool`) and keeps it from case to case,
so the model is loaded once, limits apply as on one machine, and a crash of our worker does not kill Dask's. The case of
a Dask worker that is lost is run elsewhere by Dask. The ledger stays with the process that started the batch.
"""

from __future__ import annotations

import atexit
from importlib import import_module
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from medmaskrcnn.batch_runs.settings import ClusterTls, Limits
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.batch_runs.worker_pool import End, LocalWorkerPool, Setup
from medmaskrcnn.errors import MedMaskRCNNError, MissingExtraError
from medmaskrcnn.system.exceptions import words_of

_CONNECT_S = 15
_WAIT_S = 1.0
_AHEAD = 2  # tasks per Dask worker: one running, one queued

_here: dict[tuple[Setup, Limits], LocalWorkerPool] = {}
_turn = Lock()


def at_this_worker(setup: Setup, limits: Limits, task: dict[str, Any]) -> dict[str, Any]:
    """Runs on a Dask worker for one case: submit it to our local worker process, and wait for its end."""
    with _turn:  # a Dask worker with several threads still loads one model
        pool = _here.get((setup, limits))
        if pool is None:
            for other in _here.values():  # pools of another batch
                other.close(at_once=False)
            _here.clear()
            pool = _here[setup, limits] = LocalWorkerPool(setup, 1, limits)
            atexit.register(pool.close, at_once=True)
        pool.submit(Task.from_json(task), alone=True)
        while True:
            for end in pool.ends(_WAIT_S):
                return vars(end)


class DaskWorkerPool:
    """A Dask cluster; see the top of this file and :class:`medmaskrcnn.batch_runs.worker_pool.WorkerPool`.

    Args:
        address: Address of the scheduler, ``tcp://host:8786``.
        setup: Setup of every worker.
        limits: Limits for one case.
        tls: Certificates, for an address ``tls://host:8786``; by default those of Dask's own configuration.

    Raises:
        MissingExtraError: if Dask's distributed scheduler is not installed.
        MedMaskRCNNError: if the scheduler does not answer.
    """

    def __init__(self, address: str, setup: Setup, limits: Limits, tls: ClusterTls | None = None) -> None:
        try:
            distributed = import_module("distributed")
        except ImportError as error:
            raise MissingExtraError(
                "running on a cluster needs Dask's scheduler: pip install 'medmaskrcnn[cluster]'"
            ) from error
        try:
            security = None if tls is None else distributed.Security(**tls.for_dask())
            self._client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False, security=security)
        except (OSError, TimeoutError, ValueError) as error:
            raise MedMaskRCNNError(
                f"no Dask scheduler answers at {address}: {error}. Start one with: dask scheduler"
            ) from error
        self._killed = distributed.scheduler.KilledWorker
        self._setup, self._limits = setup, limits
        self._futures: dict[int, Any] = {}
        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._handed = 0

    def has_capacity(self, *, alone: bool) -> bool:
        """See :class:`~medmaskrcnn.batch_runs.worker_pool.WorkerPool`; every task has a worker to itself anyway."""
        return len(self._futures) < _AHEAD * max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def submit(self, task: Task, *, alone: bool) -> None:
        """See :class:`~medmaskrcnn.batch_runs.worker_pool.WorkerPool`."""
        self._handed += 1
        key = f"medmaskrcnn-{task.id}-{self._handed}"
        future = self._client.submit(
            at_this_worker, self._setup, self._limits, task.to_json(), key=key, pure=False, priority=-self._handed
        )
        self._futures[task.id] = future
        future.add_done_callback(lambda done: self._ended.put((task.id, done)))

    def ends(self, timeout_s: float) -> list[End]:
        """See :class:`~medmaskrcnn.batch_runs.worker_pool.WorkerPool`.

        Raises:
            MedMaskRCNNError: if the scheduler is lost, or workers cannot use the model.
        """
        try:
            id_, future = self._ended.get(timeout=timeout_s)
        except Empty:
            if self._client.status not in ("running", "connecting"):
                raise MedMaskRCNNError(_LOST) from None
            return []
        self._futures.pop(id_, None)
        if future.status == "finished":
            return [End(**future.result())]
        if future.status != "error":
            raise MedMaskRCNNError(_LOST)
        error = future.exception()
        if isinstance(error, self._killed):
            return [End(id_, "died", "the Dask workers that took it died, one after the other")]
        if isinstance(error, MedMaskRCNNError):
            raise error
        return [End(id_, "failed", f"the Dask worker failed: {words_of(error)}")]

    def close(self, *, at_once: bool) -> None:
        """See :class:`~medmaskrcnn.batch_runs.worker_pool.WorkerPool`; the cluster itself keeps running."""
        self._client.cancel(list(self._futures.values()), force=at_once)
        self._client.close(timeout=_CONNECT_S)


_LOST = "the Dask scheduler is lost. What is done stays done: start it and run the same command again"

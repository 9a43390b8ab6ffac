"""Decodes compressed slices in several processes, if that saves time.

The decoders hold Python's GIL, so threads gain nothing. Workers are separate programs
(:mod:`medmaskrcnn.system.child_process`): a decoder that crashes on damaged data ends a worker, not the caller. A
worker is sent a path and returns the pixels or an error.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.system.child_process import ChildProcess

_LOG = logging.getLogger(__name__)

_NS_PER_SAMPLE: dict[str, int] = {
    JPEG2000Lossless: 100,
    JPEG2000: 100,
    HTJ2K: 20,
    HTJ2KLossless: 20,
    HTJ2KLosslessRPCL: 20,
    JPEGLSLossless: 18,
    JPEGLSNearLossless: 18,
}
"""Decoding times, measured on 512 x 512 CT; other syntaxes are too fast to be worth it."""

_PAYS_FROM_S = 2.0
"""A worker takes about half a second to start."""

_BUSY = 0.75
"""Fraction of busy cores above which the machine is in use: more processes would only wait for one another."""

_MAX_WORKERS = 8
_AHEAD = 4  # slices per worker decoded in advance: bounds memory


def decoded_elsewhere(headers: Sequence[DicomHeader]) -> Iterator[NDArray[Any]] | None:
    """Pixels ``(H, W)`` of single-frame files in order, from worker processes; ``None`` if that would save no time.

    Raises:
        ReadError: while iterating, if a file is damaged.
    """
    seconds = sum(_NS_PER_SAMPLE.get(h.transfer_syntax, 0) * h.rows * h.columns * h.samples for h in headers) * 1e-9
    n_workers = _idle_cores()
    if n_workers < 2 or seconds < _PAYS_FROM_S or any(h.n_frames != 1 for h in headers) or not sys.executable:
        return None
    workers: list[_Worker] = []
    try:
        for _ in range(min(n_workers, _MAX_WORKERS)):
            workers.append(_Worker())
    except OSError as error:
        _LOG.info("only %d worker processes: %s", len(workers), error)
    if not workers:
        return None
    return _in_order(headers, workers)


def _idle_cores() -> int:
    """How many processes may compute at once; 1 if the machine is busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return 1 if load > _BUSY * cores else cores


class _Worker:
    """One process that decodes one file at a time."""

    def __init__(self) -> None:
        self.process = ChildProcess("medmaskrcnn.io.dicom.decode_worker", quiet=True)

    def decode(self, path: Path, **options: Any) -> NDArray[Any]:
        try:
            self.process.send({"path": str(path), **options})
            answer, pixels = self.process.receive()
        except (OSError, EOFError) as error:
            raise ReadError(
                f"{path} cannot be decoded: the decoder stopped. It may be damaged; copy or export it again"
            ) from error
        if "error" in answer:
            raise ReadError(answer["error"])
        return pixels[0]


def decoded_by_other(header: DicomHeader, index: int | None) -> NDArray[Any] | None:
    """Frames ``(N, ...)`` by the second decoder of the transfer syntax, which may crash: in a process of its own.

    Args:
        header: The file's header.
        index: Only this frame; all of them by default.

    Returns:
        ``None`` if it cannot decode them either.
    """
    try:
        worker = _Worker()
    except OSError as error:
        _LOG.info("no worker process: %s", error)
        return None
    try:
        return worker.decode(header.path, index=index, other_plugin=True)
    except ReadError:
        return None
    finally:
        worker.process.close()


def _in_order(headers: Sequence[DicomHeader], workers: Sequence[_Worker]) -> Iterator[NDArray[Any]]:
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def decode(header: DicomHeader) -> NDArray[Any]:
        worker = free.get()
        try:
            return np.asarray(worker.decode(header.path)[0])
        finally:
            free.put(worker)

    waiting: deque[Future[NDArray[Any]]] = deque()
    threads = ThreadPoolExecutor(len(workers))
    try:
        for header in headers:
            waiting.append(threads.submit(decode, header))
            if len(waiting) > _AHEAD * len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for worker in workers:
            worker.process.close()
        threads.shutdown()

"""Interface of an archive for pull, push and watch, independent of the protocol."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from pydicom.dataset import Dataset

from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.server import Query, RemoteSeries, Server

logger = logging.getLogger(__name__)

T = TypeVar("T")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 20.0


class TransientError(ArchiveError):
    """The archive did not answer or is busy; a later try may succeed."""


class Archive(Protocol):
    """An archive. Every method raises TransientError if another try may help, else ArchiveError."""

    server: Server

    def find(self, query: Query) -> list[RemoteSeries]:
        """Series that match a query, in a fixed order."""

    def instances(self, series: RemoteSeries) -> list[str]:
        """SOP Instance UIDs of a series."""

    def fetch(self, series: RemoteSeries, instances: Iterable[str] | None) -> Iterator[Dataset]:
        """Objects of a series as stored: those with the given SOP Instance UIDs, or all."""

    def store(self, dataset: Dataset) -> None:
        """Store one object; storing it again changes nothing."""

    def holds(self, study: str, series: str, instance: str) -> bool:
        """Whether the archive has an object."""

    def close(self) -> None:
        """Close the connections."""


def patiently(what: Callable[[], T], server: Server) -> T:
    """Retry with growing delays while the archive does not answer.

    Raises:
        ArchiveError: if it does not answer within ``server.patience_s``, or refuses.
    """
    deadline = time.monotonic() + server.patience_s
    wait = _FIRST_WAIT_S
    while True:
        try:
            return what()
        except TransientError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ArchiveError(f"{error}. Run the same command again later: it goes on where it ended") from error
            logger.info("%s; trying again", error)
            time.sleep(min(left, wait * random.uniform(0.5, 1.0)))  # random, so that clients do not retry all at once
            wait = min(2 * wait, _LONGEST_WAIT_S)

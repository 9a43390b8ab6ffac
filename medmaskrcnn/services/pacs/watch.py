"""Whatever arrives is segmented, and the results go back if that is wanted.

Scans come by themselves (:mod:`medmaskrcnn.services.pacs.receive`) or are asked for again and again. The batch's
ledger is the memory: a series that it knows is not done twice, however often the watch is stopped, killed and begun
again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from medmaskrcnn.batch_runs.ledger import now
from medmaskrcnn.batch_runs.plan import BatchCase
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.archive import Archive, patiently
from medmaskrcnn.services.pacs.pull import pull_series
from medmaskrcnn.services.pacs.push import Pushed, push, results_below
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import Query, RemoteSeries

logger = logging.getLogger(__name__)


class Arrivals(Protocol):
    """Where scans come from."""

    def next(self, known: set[str]) -> list[Path]:
        """Folders of complete series whose UIDs are not known; an empty list if there is none now."""

    def close(self) -> None:
        """Stop."""


class Received:
    """Series that were sent to us.

    Args:
        inbox: What receives them.
        quiet_s: A series is complete when nothing of it has come for so long.
    """

    def __init__(self, inbox: Inbox, quiet_s: float) -> None:
        self._inbox, self._quiet_s = inbox, quiet_s

    def next(self, known: set[str]) -> list[Path]:
        """See :class:`Arrivals`; a known series that is sent again is looked at, since more of it may have come."""
        return self._inbox.quiet(self._quiet_s)

    def close(self) -> None:
        """See :class:`Arrivals`."""
        self._inbox.close()


class Asked:
    """Series that an archive is asked for, at most every so many seconds.

    Args:
        archive: The archive.
        query: What for.
        folder: Where they are pulled to.
        every_s: How often.
    """

    def __init__(self, archive: Archive, query: Query, folder: Path, every_s: float) -> None:
        self._archive, self._query, self._folder, self._every_s = archive, query, folder, every_s
        self._next = 0.0
        self._seen: dict[str, int] = {}

    def next(self, known: set[str]) -> list[Path]:
        """See :class:`Arrivals`; a series counts as complete when it has not grown between two questions."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._every_s
        complete = []
        for series in self._ask(known):
            count = len(patiently(partial(self._archive.instances, series), self._archive.server))
            if self._seen.get(series.series) != count:
                self._seen[series.series] = count
                continue
            pulled = pull_series(self._archive, series, self._folder)
            if pulled.error is None:
                complete.append(pulled.folder)
            else:
                logger.error("%s", pulled.error)
        return complete

    def _ask(self, known: set[str]) -> list[RemoteSeries]:
        found = patiently(lambda: self._archive.find(self._query), self._archive.server)
        return [series for series in found if series.series not in known]

    def close(self) -> None:
        """See :class:`Arrivals`."""
        self._archive.close()


@dataclass(frozen=True)
class Watched:
    """One series that was segmented, or whose results went back, which may be later."""

    case: BatchCase | None = None
    pushed: tuple[Pushed, ...] = ()


def watch(
    arrivals: Arrivals,
    run: BatchRun,
    *,
    back_to: Archive | None = None,
    discard: bool = False,
    is_over: Callable[[], bool] = lambda: False,
    pause_s: float = 0.5,
) -> Iterator[Watched]:
    """Segment what arrives, until it is over.

    Args:
        arrivals: Where scans come from.
        run: The batch that does them; its workers stay.
        back_to: Where SEG and SR go, if anywhere.
        discard: Remove a scan once its result is written.
        is_over: Asked between two series.
        pause_s: Rest when nothing has come.
    """
    yield from _done(run, back_to)  # what an earlier watch was killed with
    yield from _sent_back(run, back_to)
    while not is_over():
        try:
            folders = arrivals.next({entry.found.series_uid for entry in run.ledger.entries()})
        except ArchiveError as error:  # a night is long: the archive may be back in the morning
            logger.error("%s", error)
            folders = []
        if not folders:
            time.sleep(pause_s)
            continue
        run.scan_sources(folders, quiet=True)
        yield from _done(run, back_to)
        for folder in folders if discard else ():
            shutil.rmtree(folder, ignore_errors=True)


def _done(run: BatchRun, back_to: Archive | None) -> Iterator[Watched]:
    for case in run.work():
        yield Watched(case)
        yield from _sent_back(run, back_to)


def _sent_back(run: BatchRun, back_to: Archive | None) -> Iterator[Watched]:
    """Push what has not gone back yet; the ledger remembers what has."""
    for entry in run.ledger.entries("done") if back_to is not None else ():
        mark = f"sent back {entry.folder}"
        files = results_below([run.out / entry.folder]) if run.ledger.get_meta(mark) is None else []
        if files and back_to is not None:
            pushed = push(back_to, files)
            if all(one.error is None for one in pushed):
                run.ledger.set_meta(mark, now())
            yield Watched(pushed=tuple(pushed))

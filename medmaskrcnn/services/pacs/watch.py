"""Segment incoming scans and optionally send the results to an archive.

Scans are sent to us (:mod:`medmaskrcnn.services.pacs.receive`) or an archive is polled for them. The batch's ledger
records what is done: a series that it knows is not segmented twice, however often the watch is stopped, killed and
started again.
"""

from __future__ import annotations

import logging
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
from medmaskrcnn.services.pacs.discard import discard_done, entries_of
from medmaskrcnn.services.pacs.pull import pull_series, series_folder
from medmaskrcnn.services.pacs.push import Pushed, push, results_below
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import Query, RemoteSeries
from medmaskrcnn.system.paths import path_below

logger = logging.getLogger(__name__)


class Arrivals(Protocol):
    """Source of incoming scans."""

    def next(self, known: set[str]) -> list[Path]:
        """Folders of complete series whose UIDs are not in ``known``; empty if there are none now."""

    def close(self) -> None:
        """Stop receiving or polling."""


class Received:
    """Series that were sent to us.

    Args:
        inbox: Storage SCP that receives them.
        quiet_s: A series is complete when nothing of it has arrived for this many seconds.
    """

    def __init__(self, inbox: Inbox, quiet_s: float) -> None:
        self._inbox, self._quiet_s = inbox, quiet_s

    def next(self, known: set[str]) -> list[Path]:
        """See :class:`Arrivals`; a known series sent again is included, since it may have grown."""
        return self._inbox.quiet(self._quiet_s)

    def close(self) -> None:
        """See :class:`Arrivals`."""
        self._inbox.close()


class Asked:
    """Series found by polling an archive.

    Args:
        archive: The archive.
        query: Which series.
        folder: Folder that they are pulled to.
        every_s: Seconds between two polls, at least.
    """

    def __init__(self, archive: Archive, query: Query, folder: Path, every_s: float) -> None:
        self._archive, self._query, self._folder, self._every_s = archive, query, folder, every_s
        self._next = 0.0
        self._seen: dict[str, int] = {}

    def next(self, known: set[str]) -> list[Path]:
        """See :class:`Arrivals`; a series counts as complete when it has not grown between two polls."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._every_s
        complete = []
        for series in self._ask(known):
            try:
                series_folder(self._folder, series.study, series.series)
            except ArchiveError as error:
                logger.error("%s has a series that cannot be fetched: %s", self._archive.server.name, error)
                continue
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
    """One series that was segmented, or the results of one that were sent to the archive."""

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
    """Segment incoming scans until ``is_over``.

    Args:
        arrivals: Source of the scans.
        run: The batch run that segments them; its workers are kept.
        back_to: Archive for the DICOM results, if any.
        discard: Delete a scan once its result is written and was read back; see
            :func:`~medmaskrcnn.services.pacs.discard.discard_done`.
        is_over: Called before each check for arrivals; True ends the watch.
        pause_s: Seconds to wait when nothing has arrived.
    """
    yield from _done(run, back_to)  # what a killed watch left queued
    yield from _sent_back(run, back_to)
    while not is_over():
        try:
            folders = arrivals.next(run.ledger.series_uids())
        except ArchiveError as error:  # the archive may be down for hours
            logger.error("%s", error)
            folders = []
        folders = [folder for folder in folders if not _is_remainder(run, folder)]
        if not folders:
            time.sleep(pause_s)
            continue
        run.scan_sources(folders, quiet=True)
        yield from _done(run, back_to)
        for folder in folders if discard else ():
            if is_over():  # what is queued still needs its files, and nobody waits for the rest
                break
            discard_done(run, folder)


def _is_remainder(run: BatchRun, folder: Path) -> bool:
    """Whether a series that was segmented and discarded has got a few more files: they are no series of their own."""
    for entry in entries_of(run, folder):
        gone = [file for file in entry.found.files if not Path(file).exists()]
        if entry.status == "done" and gone:
            logger.error(
                "%s: more of a series has come after its scan was discarded; what came is kept and not segmented, and "
                "the result is that of the %d files before. Send the whole series again to segment it anew",
                entry.folder, len(entry.found.files),
            )  # fmt: skip
            return True
    return False


def _done(run: BatchRun, back_to: Archive | None) -> Iterator[Watched]:
    for case in run.work():
        yield Watched(case)
        yield from _sent_back(run, back_to)


def _sent_back(run: BatchRun, back_to: Archive | None) -> Iterator[Watched]:
    """Push results that were not sent yet, as recorded in the ledger; those of a series that grew are sent again."""
    for entry in run.ledger.entries("done") if back_to is not None else ():
        mark, state = f"sent back {entry.folder}", entry.found.fingerprint
        sent = run.ledger.get_meta(mark)
        if sent is not None and (" " not in sent or sent.endswith(f" {state}")):
            continue
        files = results_below([path_below(run.out, entry.folder)])
        if files and back_to is not None:
            pushed = push(back_to, files)
            if all(one.error is None for one in pushed):
                run.ledger.set_meta(mark, f"{now()} {state}")
            yield Watched(pushed=tuple(pushed))

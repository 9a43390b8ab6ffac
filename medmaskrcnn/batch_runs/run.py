"""START READING HERE: a batch, from sources to a tree of results with a summary.

    find the series -> add them to the ledger -> submit what is left to workers -> record each end -> summary

The ledger decides what is left, so repeating a call does only that, however the last one ended.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmaskrcnn.batch_runs.ledger import Entry, Ledger, Status
from medmaskrcnn.batch_runs.names import new_key
from medmaskrcnn.batch_runs.plan import BatchCase, BatchPlan, BatchProgress
from medmaskrcnn.batch_runs.reasons import without_paths
from medmaskrcnn.batch_runs.scan_sources import Entered, scan_sources
from medmaskrcnn.batch_runs.settings import Work
from medmaskrcnn.batch_runs.summary import hidden_paths, write_summary
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.batch_runs.worker_pool import End, LocalWorkerPool, Setup, WorkerPool, threads_of
from medmaskrcnn.errors import OutputError, ReadError, Remedy
from medmaskrcnn.export.check import check_output_folder
from medmaskrcnn.export.dicom_files import holds_identity
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.system.files import PARTIAL, make_folder
from medmaskrcnn.system.paths import path_below, remove_below

logger = logging.getLogger(__name__)

_TURN_S = 0.5
_TRIES = 2
_SUMMARY_EVERY_S = 60.0


class BatchRun:
    """One run on one output folder: owns the ledger, and the workers while there is work.

    Args:
        out: The output folder.
        plan: What to do.

    Raises:
        OutputError: as for :func:`medmaskrcnn.batch_runs.api.batch`.
    """

    def __init__(self, out: Path, plan: BatchPlan) -> None:
        check_output_folder(out)
        self.out, self.plan = out.absolute(), plan
        make_folder(self.out, private=plan.plain_names or holds_identity(plan.work.output))
        self.ledger = Ledger(self.out)
        self._pool: WorkerPool | None = None
        self._pending: deque[Entry] = deque()
        self._alone: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._in_hand: dict[int, Entry] = {}
        self._stopping = False
        self._began = time.monotonic()
        self._ended = 0

    def __enter__(self) -> BatchRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scan_sources(
        self, sources: Sequence[Path], *, redo: bool = False, retry_failed: bool = False, quiet: bool = False
    ) -> Entered:
        """Find the series in some sources and update the ledger.

        Args:
            sources: Files and folders.
            redo: Queue everything again.
            retry_failed: Queue failed series again.
            quiet: Do not raise if there is no series to segment.

        Raises:
            ReadError: if the sources hold no series that can be segmented.
            OutputError: if the output folder lies inside a source, or holds results of other settings.
        """
        self._refuse_mixing(sources)
        self._take_up(redo, retry_failed)
        entered = scan_sources(self.ledger, sources, self.plan.rules, self._key(), self.plan)
        shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
        for folder in entered.stale:  # results of files that have changed
            remove_below(self.out, folder)
        if not entered.takes and not quiet:
            self._write_summary()
            raise ReadError(_nothing_to_do(sources, entered))
        return entered

    def _refuse_mixing(self, sources: Sequence[Path]) -> None:
        for source in sources:
            if source.is_dir() and self.out.resolve().is_relative_to(source.resolve()):
                raise OutputError(
                    f"the output folder {self.out} lies inside the source {source}: its results would be taken for "
                    "scans. Give a folder elsewhere"
                )

    def _take_up(self, redo: bool, retry_failed: bool) -> None:
        """Check that the ledger's results have the same settings, and queue what a killed run had started."""
        work, ledger = self.plan.work, self.ledger
        with ledger.at_once():
            earlier = ledger.get_meta("work")
            if earlier not in (None, work.digest()) and not redo:
                raise OutputError(_other_work(self.out, ledger.get_meta("said"), work), Remedy.REDO)
            if redo and earlier is not None:
                ledger.queue_again(("done", "refused", "failed"))
            if retry_failed:
                ledger.queue_again(("failed",))
            ledger.set_meta("work", work.digest())
            ledger.set_meta("said", _text(work.as_dict()))
            ledger.set_meta("model", read_model_settings(Path(work.model)).card.name)
            ledger.recover()
            ledger.note("run begins")

    def _key(self) -> bytes | None:
        """The key of the pseudonyms: the one given, else the ledger's or a new one; ``None`` for plain names."""
        if self.plan.plain_names:
            return None
        kept = self.ledger.get_meta("key")
        key = self.plan.key or (bytes.fromhex(kept) if kept else new_key())
        if kept and key.hex() != kept:
            raise OutputError(f"{self.out} was begun with another key: give that, or another output folder")
        self.ledger.set_meta("key", key.hex())
        return key

    def stop(self) -> None:
        """Start no further series; those already submitted are finished."""
        self._stopping = True

    def work(self) -> Iterator[BatchCase]:
        """Process the queued series and yield each when it ends.

        Raises:
            MedMaskRCNNError: if workers cannot be started, or the disk is full; the ledger keeps what is left.
        """
        self._pending = deque(self.ledger.entries("queued"))
        self._began, self._ended = time.monotonic(), 0
        written = time.monotonic()
        try:
            while (self._pending and not self._stopping) or self._in_hand:
                self._feed()
                assert self._pool is not None, "there is work"
                for end in self._pool.ends(_TURN_S):
                    if (case := self._remember(end)) is not None:
                        yield case
                        if self.plan.fail_fast and case.status != "done":
                            self.stop()
                if time.monotonic() - written > _SUMMARY_EVERY_S:
                    self._write_summary()
                    written = time.monotonic()
        finally:
            self._give_back()
            self._write_summary()

    def _feed(self) -> None:
        if self._pool is None:
            self._pool = self._start_worker()
        while self._pending and not self._stopping:
            entry = self._pending[0]
            alone = entry.id in self._alone
            if not self._pool.has_capacity(alone=alone):
                return
            self._pending.popleft()
            self.ledger.starts(entry.id)
            self._in_hand[entry.id] = entry
            self._pool.submit(self._task(entry), alone=alone)

    def _start_worker(self) -> WorkerPool:
        plan = self.plan
        setup = Setup(plan.work.model, plan.work.model_sha256, plan.work.options, threads_of(plan.workers))
        if plan.scheduler is None:
            return LocalWorkerPool(setup, plan.workers, plan.limits)
        # imported here because only a cluster needs it
        from medmaskrcnn.batch_runs.dask_pool import DaskWorkerPool

        return DaskWorkerPool(plan.scheduler, setup, plan.limits, plan.cluster_tls)

    def _task(self, entry: Entry) -> Task:
        found, work = entry.found, self.plan.work
        return Task(
            id=entry.id,
            out=str(self.out),
            folder=entry.folder,
            files=found.files,
            part=found.part,
            archive=found.archive,
            options=work.options,
            output=work.output,
            hidden=tuple(hidden_paths(found)),
            sequences=found.sequences,
        )

    def _remember(self, end: End) -> BatchCase | None:
        """Record the end of a series in the ledger; ``None`` if it is to be tried again."""
        entry = self._in_hand.pop(end.id)
        if end.details is not None:
            logger.error("%s: %s", entry.folder, without_paths(end.details, hidden_paths(entry.found)))
        if end.no_room:
            self.ledger.put_back(end.id)
            raise OutputError(
                f"no room for results in {self.out}: the disk is full or files may not be so large. Make room and run "
                "again: what is done stays done"
            )
        if end.kind == "innocent":
            self._again(entry)
            return None
        if end.kind == "died" or end.again:
            self._deaths[end.id] = self._deaths.get(end.id, 0) + 1
            if self._deaths[end.id] < _TRIES:
                self._alone.add(end.id)
                self._again(entry)
                return None
        status: Status = "failed" if end.kind == "died" else end.kind
        tried = f", {_TRIES} times" if self._deaths.get(end.id, 0) >= _TRIES else ""
        reason = None if end.reason is None else end.reason + tried
        outcome = end.outcome if end.remedy is None else {**end.outcome, "remedy": end.remedy}
        self.ledger.finishes(end.id, status, reason, end.seconds, outcome)
        self._ended += 1
        return self._case(replace(entry, status=status, reason=reason, seconds=end.seconds, outcome=outcome))

    def _again(self, entry: Entry) -> None:
        self.ledger.put_back(entry.id)
        self._pending.appendleft(entry)

    def _case(self, entry: Entry) -> BatchCase:
        reason = None if entry.reason is None else without_paths(entry.reason, hidden_paths(entry.found))
        return BatchCase(
            status=entry.status,
            reason=reason,
            remedy=entry.remedy,
            folder=path_below(self.out, entry.folder),
            counts=entry.outcome.get("counts", {}),
            warnings=tuple(entry.outcome.get("warnings", ())),
            unwritten=tuple(entry.outcome.get("unwritten", ())),
            seconds=entry.seconds,
            progress=self.progress(),
        )

    def progress(self) -> BatchProgress:
        """Progress of the batch."""
        counts = self.ledger.counts()
        left = counts.get("queued", 0) + counts.get("running", 0)
        rate = self._ended / max(time.monotonic() - self._began, 1e-9)
        return BatchProgress(
            done=counts.get("done", 0),
            failed=counts.get("failed", 0),
            refused=counts.get("refused", 0),
            skipped=counts.get("skipped", 0),
            left=left,
            per_hour=3600 * rate,
            seconds_left=left / rate if rate else None,
        )

    def incomplete(self) -> int:
        """Number of series that are done but lack a file that was asked for."""
        return sum(bool(entry.outcome.get("unwritten")) for entry in self.ledger.entries("done"))

    def _give_back(self) -> None:
        """Queue again the series that are still running, however the work ended."""
        if self._in_hand and self._pool is not None:  # after an error or a closed generator nobody waits for them
            self._pool.close(at_once=True)
            self._pool = None
        for id_ in list(self._in_hand):
            self.ledger.put_back(id_)
            del self._in_hand[id_]

    def _write_summary(self) -> None:
        write_summary(self.out, self.ledger)

    def close(self) -> None:
        """Stop the workers and close the ledger."""
        if self._pool is not None:
            self._pool.close(at_once=bool(self._in_hand))
            self._pool = None
        shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
        self.ledger.close()


def _text(said: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(said.items()))


def _other_work(out: Path, earlier: str | None, work: Work) -> str:
    before, after = set((earlier or "").split(", ")), set(_text(work.as_dict()).split(", "))
    told = f"then {', '.join(sorted(before - after))}; now {', '.join(sorted(after - before))}"
    return f"{out} holds results of another model or other settings ({told})"


def _nothing_to_do(sources: Sequence[Path], entered: Entered) -> str:
    where = ", ".join(str(source) for source in sources[:3]) + (" ..." if len(sources) > 3 else "")
    if not entered.reasons:
        return f"{where}: no series that can be segmented"
    reasons = "; ".join(f"{count} x {reason}" for reason, count in entered.reasons[:3])
    return f"{where}: no series that can be segmented, only: {reasons}"

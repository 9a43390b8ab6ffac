"""Scan the sources and add new, known and changed series to the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from medmaskrcnn.batch_runs.find import FoundSeries, Verdict, find_series
from medmaskrcnn.batch_runs.ledger import Ledger, Status
from medmaskrcnn.batch_runs.names import case_folder, plain_folder
from medmaskrcnn.batch_runs.reasons import without_paths
from medmaskrcnn.batch_runs.rules import Rules
from medmaskrcnn.batch_runs.sequences import WantedSequences, join_sequences
from medmaskrcnn.batch_runs.settings import Work
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.inference.track_time import reading_options
from medmaskrcnn.settings.channels import ordered


@dataclass(frozen=True)
class Entered:
    """Result of scanning the sources.

    Attributes:
        takes: Number of series in the sources that are to be segmented or already were.
        new: How many of these were not yet in the ledger.
        changed: Number of series whose files have changed since the last run; they are done again.
        stale: Result folders of changed series.
        reasons: Why other series are not taken, with their number, most frequent first.
    """

    takes: int
    new: int
    changed: int
    stale: tuple[str, ...]
    reasons: tuple[tuple[str, int], ...]


class _Plan(Protocol):
    @property
    def work(self) -> Work: ...


def scan_sources(ledger: Ledger, sources: Sequence[Path], rules: Rules, key: bytes | None, plan: _Plan) -> Entered:
    """Scan the sources and update the ledger in one transaction.

    Args:
        ledger: The ledger.
        sources: Files and folders.
        rules: Which series to take.
        key: Key of the folders' pseudonyms; ``None`` for plain names.
        plan: Holds the options for reading scans.
    """
    options = plan.work.options
    found = find_series(sources, reading=reading_options(options), track=options.track)
    found = join_sequences(found, _wanted(plan.work))
    left_out = rules.left_out([series for series in found if series.verdict == "queued"])
    found = [
        replace(series, verdict="skipped", reason=left_out[series.identity]) if series.identity in left_out else series
        for series in found
    ]
    known = ledger.known()
    folders = {folder.lower() for folder, _, _ in known.values()}
    new = changed = 0
    stale = []
    with ledger.at_once():
        for series in found:
            if series.identity not in known:
                folder = case_folder(series, key) if key is not None else plain_folder(series, folders)
                folders.add(folder.lower())
                ledger.add(series, folder)
                new += series.verdict == "queued"
                continue
            folder, fingerprint, status = known[series.identity]
            other_files = fingerprint != series.fingerprint
            ledger.add(series, folder, anew=other_files or _is_judged_anew(series.verdict, status))
            if other_files:
                changed += 1
                stale.append(folder)
                ledger.note(f"other files than last time: {folder}")
    reasons = Counter(_shortly(series) for series in found if series.verdict != "queued")
    takes = sum(series.verdict == "queued" for series in found)
    return Entered(takes, new, changed, tuple(stale), tuple(reasons.most_common()))


def _wanted(work: Work) -> WantedSequences:
    """The sequences that the model of a batch takes."""
    settings = read_model_settings(Path(work.model))
    if work.options.channels:
        own = ordered(tuple(name for name, _ in work.options.channels), settings)
        patterns = dict(work.options.channels)
        return WantedSequences(tuple(own), tuple((name, patterns[theirs]) for name, theirs in own.items()))
    return WantedSequences(
        settings.preprocess.channel_names or tuple(f"{i:04d}" for i in range(settings.scan_channels))
    )


def _is_judged_anew(verdict: Verdict, status: Status) -> bool:
    """Whether rules or settings now decide differently about unchanged files; what is done stays done."""
    if verdict == "queued":
        return status == "skipped"
    return status != "done" and status != verdict


def _shortly(series: FoundSeries) -> str:
    return without_paths(
        series.reason or "", [*series.files, str(Path(series.files[0]).parent)] if series.files else []
    )

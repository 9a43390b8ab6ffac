"""The ledger: one SQLite file that records every series of a batch, so that a rerun does only what is left.

Only the ledger holds names, IDs, dates and paths, so its mode is 0600. Every change is one transaction and is synced to
disk, in case of a power failure. Only one process writes it; a second run on the same folder is refused.

    queued -> running -> done | refused | failed          "running" series of a killed run are queued again
    skipped: no scan, or excluded by a rule
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.errors import OutputError, Remedy

LEDGER_NAME = "ledger.sqlite"
LOCK_NAME = ".lock.sqlite"
VERSION = 1

Status = Literal["queued", "running", "done", "refused", "failed", "skipped"]

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,     -- names the series: its UID, or its file
    folder TEXT NOT NULL UNIQUE,       -- of the result, relative to the ledger
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'refused', 'failed', 'skipped')),
    reason TEXT,                       -- why it was refused, failed or skipped
    attempts INTEGER NOT NULL DEFAULT 0,
    changed TEXT NOT NULL,             -- time of the last change of status, UTC
    seconds REAL,                      -- what the case took
    fingerprint TEXT NOT NULL,         -- of the input files
    found TEXT NOT NULL,               -- whose it is and where its files lie, JSON
    outcome TEXT NOT NULL DEFAULT '{}' -- what the summary says of the result, JSON
) STRICT;
CREATE TABLE events (at TEXT NOT NULL, what TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Entry:
    """A series as recorded in the ledger."""

    id: int
    folder: str
    status: Status
    reason: str | None
    attempts: int
    seconds: float | None
    found: FoundSeries
    outcome: dict[str, Any]

    @property
    def remedy(self) -> Remedy | None:
        """What the user may do about a series that was refused or failed, if anything."""
        named = self.outcome.get("remedy") or (self.found.remedy if self.status == "refused" else None)
        return None if named is None else Remedy(named)


class Ledger:
    """The ledger of one output folder, open for writing by this process alone.

    Args:
        folder: The output folder; it and the ledger are created if missing.

    Raises:
        OutputError: if the ledger is in use by another run, damaged, of another version, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER_NAME
        with _told(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(folder)
            try:
                is_new = not self.path.exists()
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                self.path.chmod(0o600)
                self._db = sqlite3.connect(self.path, isolation_level=None)
                self._db.execute("PRAGMA synchronous = FULL")
                if is_new or not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    self._make()
                self._check()
            except BaseException:
                self._lock.close()
                raise

    def _make(self) -> None:
        with self.at_once():
            for statement in _TABLES.split(";\n"):
                self._db.execute(statement)
            self.set_meta("version", str(VERSION))
            self.set_meta("created", now())

    def _check(self) -> None:
        (state,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        version = self.get_meta("version")
        if state != "ok" or version is None:
            raise OutputError(f"the ledger {self.path} is damaged ({state}). Move it away, or choose another folder")
        if int(version) != VERSION:
            raise OutputError(f"the ledger {self.path} has version {version}, this software reads {VERSION}: upgrade")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Run the block as one transaction: all of its changes or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        try:
            with _told(self.path):
                self._db.execute("COMMIT")
        except OutputError:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def get_meta(self, name: str) -> str | None:
        """A property of the batch, such as the digest of its settings."""
        row = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Store a property of the batch."""
        self._do("INSERT OR REPLACE INTO about VALUES (?, ?)", name, value)

    def note(self, what: str) -> None:
        """Record an event with the time."""
        self._do("INSERT INTO events VALUES (?, ?)", now(), what)

    def recover(self) -> int:
        """Queue again the series that a killed run had started; returns how many."""
        return self._do("UPDATE series SET status = 'queued', changed = ? WHERE status = 'running'", now())

    def queue_again(self, statuses: Iterable[Status]) -> int:
        """Queue every series that has one of some statuses; returns how many."""
        wanted = list(statuses)
        marks = ", ".join("?" * len(wanted))
        what = f"UPDATE series SET status = 'queued', reason = NULL, changed = ? WHERE status IN ({marks})"
        return self._do(what, now(), *wanted)

    def known(self) -> dict[str, tuple[str, str, Status]]:
        """Folder, fingerprint and status of each series, by identity."""
        rows = self._db.execute("SELECT identity, folder, fingerprint, status FROM series")
        return {identity: (folder, fingerprint, status) for identity, folder, fingerprint, status in rows}

    def add(self, series: FoundSeries, folder: str, *, anew: bool = False) -> None:
        """Add a series, or update a known one; ``anew`` discards its outcome."""
        facts = (series.verdict, series.reason, now(), series.fingerprint, json.dumps(asdict(series)))
        self._do(
            "INSERT INTO series (identity, folder, status, reason, changed, fingerprint, found) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET found = excluded.found",
            *(series.identity, folder, *facts),
        )
        if anew:
            self._do(
                "UPDATE series SET status = ?, reason = ?, changed = ?, fingerprint = ?, found = ?, attempts = 0, "
                "outcome = '{}' WHERE identity = ?",
                *(*facts, series.identity),
            )

    def starts(self, id_: int) -> None:
        """Record that a series was given to a worker."""
        self._do("UPDATE series SET status = 'running', attempts = attempts + 1, changed = ? WHERE id = ?", now(), id_)

    def put_back(self, id_: int) -> None:
        """Queue a series again that was started and not finished."""
        self._do("UPDATE series SET status = 'queued', changed = ? WHERE id = ?", now(), id_)

    def finishes(
        self, id_: int, status: Status, reason: str | None, seconds: float | None, outcome: dict[str, Any]
    ) -> None:
        """Record the end of a series."""
        self._do(
            "UPDATE series SET status = ?, reason = ?, seconds = ?, outcome = ?, changed = ? WHERE id = ?",
            *(status, reason, seconds, json.dumps(outcome), now(), id_),
        )

    def entries(self, *statuses: Status) -> list[Entry]:
        """Series with one of some statuses, or all, in the order of their folders."""
        marks = ", ".join("?" * len(statuses))
        where = f"WHERE status IN ({marks})" if statuses else ""
        rows = self._db.execute(
            f"SELECT id, folder, status, reason, attempts, seconds, found, outcome FROM series {where} ORDER BY folder",
            statuses,
        )
        return [_entry(row) for row in rows]

    def series_uids(self) -> set[str]:
        """Series Instance UIDs of all series."""
        return {str(uid) for (uid,) in self._db.execute("SELECT json_extract(found, '$.series_uid') FROM series")}

    def entries_of_files(self, folder: Path) -> list[Entry]:
        """Series with files below a folder."""
        inside = json.dumps(f"{folder}{os.sep}")[1:-1]  # as it stands in JSON
        rows = self._db.execute(
            "SELECT id, folder, status, reason, attempts, seconds, found, outcome FROM series "
            "WHERE instr(found, ?) ORDER BY folder",
            (inside,),
        )
        return [_entry(row) for row in rows]

    def entry(self, id_: int) -> Entry:
        """The entry of one series."""
        return _entry(
            self._db.execute(
                "SELECT id, folder, status, reason, attempts, seconds, found, outcome FROM series WHERE id = ?", (id_,)
            ).fetchone()
        )

    def counts(self) -> dict[str, int]:
        """Number of series by status."""
        return dict(self._db.execute("SELECT status, count(*) FROM series GROUP BY status").fetchall())

    def close(self) -> None:
        """Close the ledger and release its lock."""
        self._db.close()
        self._lock.close()

    def _do(self, statement: str, *values: Any) -> int:
        with _told(self.path):
            return self._db.execute(statement, [_utf8(value) for value in values]).rowcount


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _utf8(value: Any) -> Any:
    """The value with characters escaped that UTF-8 cannot encode, as in paths with other bytes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _entry(row: tuple[Any, ...]) -> Entry:
    id_, folder, status, reason, attempts, seconds, found, outcome = row
    facts = json.loads(found)
    facts |= {"files": tuple(facts["files"]), "archive": tuple(facts["archive"]) if facts["archive"] else None}
    facts["sequences"] = tuple((name, count) for name, count in facts.get("sequences", ()))
    return Entry(id_, folder, status, reason, attempts, seconds, FoundSeries(**facts), json.loads(outcome))


def _hold(folder: Path) -> sqlite3.Connection:
    """Lock the folder by a transaction on a file beside the ledger; it is released when the process ends."""
    lock = sqlite3.connect(folder / LOCK_NAME, isolation_level=None, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if "locked" not in str(error):
            raise
        raise OutputError(f"another run is writing to {folder}. Wait for its end, or give another folder") from error
    return lock


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = "full" in str(error) or "disk I/O" in str(error)
        what = "Make room and run again: what was done stays done" if full else "Check the folder, then run again"
        raise OutputError(f"cannot write the ledger {path}: {error}. {what}") from error
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}. Choose another folder") from error

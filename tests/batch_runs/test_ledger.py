"""The ledger keeps its secrets, survives what may happen to it, and belongs to one run at a time."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.errors import OutputError


def series(number: int = 1) -> FoundSeries:
    return FoundSeries(
        identity=f"1.2.{number}", verdict="queued", reason=None, files=(f"/data/Miller/{number}.dcm",),
        fingerprint="f1", patient="p", study="s", name="ct", patient_name="Miller^Anna", slices=30,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "out")
    yield made
    made.close()


def test_only_its_owner_reads_it(ledger: Ledger):
    with ledger.at_once():  # a journal lies beside it meanwhile
        ledger.add(series(), "a/b/c")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in ledger.folder.glob("ledger.sqlite*")}
    assert len(modes) == 2
    assert set(modes.values()) == {0o600}


def test_a_loose_mode_is_tightened(tmp_path: Path):
    Ledger(tmp_path).close()
    (tmp_path / "ledger.sqlite").chmod(0o644)
    Ledger(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "ledger.sqlite").stat().st_mode) == 0o600


def test_what_is_entered_comes_back(ledger: Ledger):
    whole = replace(series(), files=("a\udcff.dcm", "b.dcm"), part="EchoTime 4.6", archive=("x.zip", 2))
    ledger.add(whole, "p/s/x")
    (entry,) = ledger.entries()
    assert entry.found == whole
    assert (entry.folder, entry.status, entry.attempts, entry.outcome) == ("p/s/x", "queued", 0, {})


def test_a_series_goes_its_way(ledger: Ledger):
    ledger.add(series(), "x")
    (entry,) = ledger.entries("queued")
    ledger.starts(entry.id)
    assert ledger.counts() == {"running": 1}
    ledger.finishes(entry.id, "failed", "no memory", 1.5, {"counts": {}})
    after = ledger.entry(entry.id)
    assert (after.status, after.reason, after.attempts, after.seconds) == ("failed", "no memory", 1, 1.5)
    assert ledger.queue_again(("failed",)) == 1
    assert ledger.entry(entry.id).reason is None


def test_entering_a_known_series_keeps_its_outcome(ledger: Ledger):
    ledger.add(series(), "x")
    (entry,) = ledger.entries()
    ledger.finishes(entry.id, "done", None, 1.0, {"counts": {"liver": 1}})
    ledger.add(replace(series(), files=("/elsewhere/1.dcm",)), "ignored")
    (after,) = ledger.entries()
    assert (after.status, after.folder, after.found.files) == ("done", "x", ("/elsewhere/1.dcm",))
    ledger.add(replace(series(), fingerprint="f2"), "ignored", anew=True)
    (after,) = ledger.entries()
    assert (after.status, after.folder, after.outcome, after.attempts) == ("queued", "x", {}, 0)


def test_a_second_run_is_refused_while_the_first_lives(ledger: Ledger):
    with pytest.raises(OutputError, match="another run is writing"):
        Ledger(ledger.folder)
    ledger.add(series(), "x")  # the first goes on undisturbed
    ledger.close()
    Ledger(ledger.folder).close()


def test_a_killed_process_leaves_no_lock_and_no_half_change(tmp_path: Path):
    code = """
import sys, os, signal
from pathlib import Path
from dataclasses import replace
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.batch_runs.find import FoundSeries
ledger = Ledger(Path(sys.argv[1]))
one = FoundSeries("1", "queued", None, (), "f", "p", "s", "n")
ledger.add(one, "a")
ledger.starts(1)
with ledger.at_once():
    ledger.add(replace(one, identity="2"), "b")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path)
    assert [entry.folder for entry in ledger.entries()] == ["a"]
    assert ledger.recover() == 1
    assert ledger.counts() == {"queued": 1}
    ledger.close()


def test_changes_are_all_or_none(ledger: Ledger):
    with pytest.raises(ZeroDivisionError), ledger.at_once():
        ledger.add(series(), "x")
        _ = 1 / 0
    assert ledger.entries() == []


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path):
    code = """
import sys, resource
from pathlib import Path
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.errors import OutputError
ledger = Ledger(Path(sys.argv[1]))
ledger.note("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    for _ in range(10_000):
        ledger.note("x" * 1000)
except OutputError as error:
    print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    sys.exit(7)
"""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "cannot write the ledger" in done.stdout
    assert "run again" in done.stdout
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT what FROM events LIMIT 1").fetchone() == ("before",)
    Ledger(tmp_path).close()


def test_a_damaged_ledger_is_told(tmp_path: Path):
    Ledger(tmp_path).close()
    (tmp_path / "ledger.sqlite").write_bytes(os.urandom(5000))
    with pytest.raises(OutputError, match=r"ledger\.sqlite"):
        Ledger(tmp_path)


def test_a_newer_ledger_is_told(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.set_meta("version", "2")
    ledger.close()
    with pytest.raises(OutputError, match="version 2, this software reads 1"):
        Ledger(tmp_path)


def test_a_folder_without_permission_is_told(locked_folder: Path):
    with pytest.raises(OutputError, match=str(locked_folder)):
        Ledger(locked_folder / "out")

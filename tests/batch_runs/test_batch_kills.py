"""The command as a program of its own: killed, stopped, out of room, and on a cluster that loses workers."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.batch_runs import dask_pool
from medmaskrcnn.cli.main import app

Start = Callable[..., "subprocess.Popen[str]"]


def done(out: Path, rows: Callable) -> int:
    try:
        return sum(row[0] == "done" for row in rows(out))
    except sqlite3.OperationalError:  # it is not there yet
        return 0


@pytest.mark.slow
def test_killed_at_random_and_begun_again_the_tree_is_the_same(
    archive: Path, tiny_model: Path, key: Path, tmp_path: Path, start: Start, tree: Callable, rows: Callable,
    wait_until: Callable, children: Callable,
):  # fmt: skip
    (archive / "garbage.dcm").write_bytes(b"no image" * 99)
    arguments = [archive, "--model", tiny_model, "--key-file", key, "-q"]
    assert len(list(medmaskrcnn.batch(archive, tmp_path / "whole", model=tiny_model, key_file=key))) == 5
    out = tmp_path / "out"
    rng = random.Random(5)
    seen = 0
    for _ in range(2):
        program = start(*arguments, "-o", out)
        wait_until(lambda p=program, n=seen: done(out, rows) > n or p.poll() is not None)
        time.sleep(rng.uniform(0, 0.3))
        workers = children(program.pid)
        program.kill()
        program.wait()
        wait_until(lambda w=workers: not any(Path(f"/proc/{pid}").exists() for pid in w))  # nobody goes on alone
        with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        whole = [folder for folder in out.glob("patient-*/study-*/series-*")]
        assert all(len(list(folder.iterdir())) == 7 for folder in whole)  # a folder is there with all its files
        seen = done(out, rows)
    last = start(*arguments, "-o", out)
    assert last.wait(200) == 1, last.stderr.read()
    assert tree(out) == tree(tmp_path / "whole")
    attempts = [row[0] for row in rows(out, "attempts")]
    assert sum(attempts) <= 5 + 2 * 3  # twice at most what was in hand: read, segmented, written


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_hand(
    archive: Path, tiny_model: Path, tmp_path: Path, start: Start, rows: Callable, wait_until: Callable
):
    out = tmp_path / "out"
    program = start(archive, "-o", out, "--model", tiny_model)
    wait_until(lambda: done(out, rows) or program.poll() is not None)
    program.send_signal(signal.SIGINT)
    said = program.communicate(timeout=100)
    statuses = [row[0] for row in rows(out)]
    assert "running" not in statuses
    assert program.returncode == (130 if "queued" in statuses else 0), said
    assert "stopping" in said[1] or "queued" not in statuses
    assert json.loads((out / "summary.json").read_text())["statuses"]["done"] == statuses.count("done") >= 1


@pytest.mark.slow
def test_no_room_stops_the_run_and_the_ledger_knows_what_is_left(
    archive: Path, tiny_model: Path, tmp_path: Path, start: Start, rows: Callable
):
    out = tmp_path / "out"
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731 - less than a preview takes
    program = start(archive, "-o", out, "--model", tiny_model, preexec_fn=small)
    said = program.communicate(timeout=200)
    assert program.returncode == 1
    assert "no room for results" in said[1] and "run again" in said[1]
    assert [row[0] for row in rows(out)] == ["queued"] * 5
    assert not [p for p in out.rglob("*") if p.is_dir()]
    assert [case.status for case in medmaskrcnn.batch(archive, out, model=tiny_model)] == ["done"] * 5


@pytest.fixture
def cluster() -> Iterator[str]:
    """A scheduler in a process of its own; workers are the test's business."""
    pytest.importorskip("distributed", reason="needs distributed (pip install 'medmaskrcnn[cluster]')")
    code = "from distributed.cli.dask_scheduler import main; main()"
    command = [sys.executable, "-c", code, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in scheduler.stderr:
        if "Scheduler at:" in line:
            address = line.split()[-1]
            break
    yield address
    scheduler.kill()
    scheduler.communicate()


def dask_worker(address: str) -> subprocess.Popen[bytes]:
    code = "from distributed.cli.dask_worker import main; main()"
    command = [sys.executable, "-c", code, address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
               "--host", "127.0.0.1"]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker(
    archive: Path, tiny_model: Path, tmp_path: Path, start: Start, cluster: str, rows: Callable, wait_until: Callable,
    children: Callable,
):  # fmt: skip
    (archive / "garbage.dcm").write_bytes(b"no image" * 99)
    workers = [dask_worker(cluster), dask_worker(cluster)]
    out = tmp_path / "out"
    try:
        program = start(archive, "-o", out, "--model", tiny_model, "--scheduler", cluster)
        wait_until(lambda: done(out, rows) or program.poll() is not None)
        ours = children(workers[0].pid)
        workers[0].kill()
        workers[0].wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
        said = program.communicate(timeout=200)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert program.returncode == 1, said
    assert "5 done, 1 refused, 0 left" in said[0]


@pytest.mark.slow
def test_no_scheduler_is_told(archive: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dask_pool, "_CONNECT_S", 1)
    words = (archive, "-o", tmp_path / "out", "--model", tiny_model, "--scheduler", "tcp://127.0.0.1:9")
    ran = CliRunner().invoke(app, ["batch", *map(str, words)])
    assert ran.exit_code == 1
    assert "no Dask scheduler answers" in ran.stderr

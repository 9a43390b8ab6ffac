"""Temporary folders of processes that were killed are removed by the next one; those in use stay."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.system.signals import ending_politely
from medmaskrcnn.system.temporary import TemporaryTree, stale_trees

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")

HOLDS = """
import sys, time
from medmaskrcnn.system.temporary import TemporaryTree
tree = TemporaryTree()
open(tree.name + "/scan", "w").close()
print(tree.name, flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def holder(home: Path) -> tuple[subprocess.Popen[str], Path]:
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(home)}
    )
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_by_the_next(home: Path):
    started, tree = holder(home)
    assert list(stale_trees(home)) == []
    TemporaryTree()
    assert (tree / "scan").exists()  # it is in use
    started.kill()
    started.communicate()
    assert list(stale_trees(home)) == [tree.parent]
    TemporaryTree()
    gc.collect()
    assert list(home.iterdir()) == []


def test_folders_of_others_stay(home: Path):
    (home / "medmaskrcnn-0.1.0-somebody").mkdir()
    (home / "medmaskrcnn-link").symlink_to(home / "medmaskrcnn-0.1.0-somebody")
    (home / "medmaskrcnn-notes").write_text("x")
    TemporaryTree()
    gc.collect()
    assert len(list(home.iterdir())) == 3


def test_it_is_for_this_user_alone(home: Path):
    tree = TemporaryTree()
    assert Path(tree.name).parent.stat().st_mode & 0o077 == 0


def test_a_command_that_is_told_to_end_leaves_nothing(home: Path):
    """The command line on a zip archive, ended while it has it unpacked."""
    picture = home / "a.png"
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(picture)
    with zipfile.ZipFile(home / "ct.zip", "w") as archive:
        archive.write(picture)
    code = (
        "import sys, time; from medmaskrcnn.cli import main as cli; from medmaskrcnn.io.discover import find_scans\n"
        "from pathlib import Path\n"
        "def held():\n    found = find_scans(Path(sys.argv[1])); print('unpacked', flush=True); time.sleep(60)\n"
        "cli.app = held\ncli.main()\n"
    )
    temporary = home / "tmp"
    temporary.mkdir()
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(home / "ct.zip")], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert started.stdout is not None and started.stdout.readline() == "unpacked\n"
    assert any(temporary.iterdir())
    started.terminate()
    started.communicate(timeout=30)
    assert started.returncode == 128 + signal.SIGTERM
    assert list(temporary.iterdir()) == []


def test_a_step_is_finished_before_the_end():
    before = signal.getsignal(signal.SIGTERM)
    with ending_politely() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before

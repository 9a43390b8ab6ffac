"""A tiny model, small scans in a folder tree as hospitals keep it, and a way to run a batch in the test's process."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tiny_models import save_tiny, tiny_settings

from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

N_SERIES = 5
PATIENCE_S = 240.0


def tiny_file(path: Path, seed: int = 0) -> Path:
    settings = tiny_settings(
        rpn={"pre_nms_top_n": 50, "post_nms_top_n": 20},
        detection={"detections_per_img": 3, "mask_threshold": 0.0},
        card={"name": f"tiny-{seed}", "summary": "Random weights."},
    )
    return save_tiny(settings, path, seed=seed)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_file(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_file(tmp_path_factory.mktemp("model") / "other.safetensors", seed=1)


@pytest.fixture(scope="session")
def clean_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``Miller^Anna0/ct`` and so on: small phantoms as folders of DICOM, all of them right. Only to be read."""
    root = tmp_path_factory.mktemp("archive")
    for seed in range(N_SERIES):
        settings = PhantomSettings(seed=seed, shape=(6, 40, 40), spacing_mm=(40.0, 9.0, 9.0), tumours=0)
        write_dicom_series(make_phantom(settings), root / f"Miller^Anna{seed}" / "ct")
    return root


@pytest.fixture
def archive(clean_archive: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(clean_archive, tmp_path / "archive"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef" * 4)
    return file


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start("in", "-o", "out")``: the command as a program of its own; what is left of it is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **more: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from medmaskrcnn.cli.main import main; main()", "batch", *map(str, arguments)]
        program = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, **more,
        )  # fmt: skip
        started.append(program)
        return program

    yield run
    for program in started:
        if program.poll() is None:
            program.kill()
        program.communicate()


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[tuple]]:
    return _rows


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object]], None]:
    return _wait_until


@pytest.fixture(scope="session")
def children() -> Callable[[int], list[int]]:
    return _children


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    return _tree


def _rows(out: Path, columns: str = "status, folder, reason") -> list[tuple]:
    """What the ledger says, read while a run may be writing."""
    with closing(sqlite3.connect(f"file:{out / 'ledger.sqlite'}?mode=ro", uri=True, timeout=10)) as ledger:
        return ledger.execute(f"SELECT {columns} FROM series ORDER BY folder").fetchall()


def _wait_until(condition: Callable[[], object]) -> None:
    """Until it holds; fails the test if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _tree(out: Path) -> dict[str, bytes]:
    """Every file of the results but those that may differ from run to run."""
    left_out = {"run.json", "ledger.sqlite", ".lock.sqlite"}
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name not in left_out}

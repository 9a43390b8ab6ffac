"""Prints which share of each room's statements the tests have run. Loaded by ``tests/conftest.py`` on request.

``MEDMASKRCNN_COVERAGE`` names a folder: each process of pytest (also those of xdist) leaves there what it saw. Where
``MEDMASKRCNN_COVERAGE_TABLE`` is set, the table is printed at the end, of this run of pytest and of those before it.
Subprocesses that tests start are not measured.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import coverage
import pytest

FOLDER = Path(os.environ["MEDMASKRCNN_COVERAGE"])
PACKAGES = ("medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn")

_measured = coverage.Coverage(FOLDER / "part", data_suffix=True, source_pkgs=list(PACKAGES), messages=False)
# xdist's controller runs nothing of ours, and no process need run all of it.
_measured.set_option("run:disable_warnings", ["module-not-measured", "module-not-imported", "no-data-collected"])


def pytest_configure() -> None:
    """Begin before any test file, and with it our code, is imported."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _measured.start()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Save before xdist's controller, which waits for this, prints the table."""
    _measured.stop()
    _measured.save()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each room: statements, and the share that ran."""
    if "MEDMASKRCNN_COVERAGE_TABLE" not in os.environ:
        return
    whole = coverage.Coverage(FOLDER / "whole", source_pkgs=list(PACKAGES), messages=False)
    whole.combine([str(path) for path in FOLDER.glob("part.*")], keep=True)
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name in whole.get_data().measured_files():
        _, statements, _, missing, _ = whole.analysis2(name)
        of = rooms[room_of(Path(name))]
        of[0] += len(statements)
        of[1] += len(statements) - len(missing)
    terminalreporter.section("statements that ran, by room")
    for room, (count, ran) in sorted(rooms.items()):
        terminalreporter.line(f"{ran / max(count, 1):7.1%} of {count:6d}  {room}")


def room_of(path: Path) -> str:
    """The folder of ``medmaskrcnn`` that a file lies in, such as ``medmaskrcnn.io``; elsewhere the package."""
    start = max(i for i, part in enumerate(path.parts[:-1]) if part in PACKAGES)
    folders = path.parts[start:-1]
    return ".".join(folders[: 2 if folders[0] == PACKAGES[0] else 1])

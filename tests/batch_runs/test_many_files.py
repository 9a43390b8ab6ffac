"""Time grows with the number of files, not with its square: each is done with a few and with eight times as many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.batch_runs.find import FoundSeries, fingerprint_of
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.batch_runs.names import plain_folder
from medmaskrcnn.batch_runs.reasons import without_paths
from medmaskrcnn.batch_runs.summary import hidden_paths

SERIES = FoundSeries("1.2", "queued", None, (), "f", "p", "s", "ct", patient_id="p", study_date="20260101")
MORE = 8


def is_linear(work: Callable[[int], float], few: int) -> bool:
    """Whether ``MORE`` times as much takes less than three times ``MORE`` as long; the fastest of three runs counts."""
    return min(work(MORE * few) for _ in range(3)) < 3 * MORE * max(min(work(few) for _ in range(3)), 1e-3)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_fingerprints_of_files_in_one_folder(tmp_path: Path):
    def work(count: int) -> float:
        folder = tmp_path / str(count)
        if not folder.exists():
            folder.mkdir()
            for i in range(count):
                (folder / f"{i}.nii.gz").touch()
        files = sorted(folder.iterdir())
        return timed(lambda: [fingerprint_of([file]) for file in files])

    assert is_linear(work, 100)


def test_a_fingerprint_knows_the_voxels_beside_a_header(tmp_path: Path):
    header, voxels = tmp_path / "a[1].nhdr", tmp_path / "a[1].raw"
    header.touch()
    alone = fingerprint_of([header])
    voxels.touch()
    beside = fingerprint_of([header])
    voxels.write_bytes(b"x")
    assert len({alone, beside, fingerprint_of([header])}) == 3


def test_plain_names():
    def work(count: int) -> float:
        taken: set[str] = set()
        series = [replace(SERIES, description=f"d{i}") for i in range(count)]
        return timed(lambda: [taken.add(plain_folder(one, taken).lower()) for one in series])

    assert is_linear(work, 500)


def test_reasons_without_paths():
    def work(count: int) -> float:
        files = tuple(f"/archive/Miller/{i:06d}.dcm" for i in range(count))
        paths = hidden_paths(replace(SERIES, files=files))
        reason = f"{files[-1]}: damaged"
        assert without_paths(reason, paths) == "<source>: damaged"
        return timed(lambda: without_paths(reason, paths))

    assert is_linear(work, 2000)
    assert work(20_000) < 1


@pytest.mark.parametrize("name", ["plain", "Größe", 'a"b', "back\\slash"])
def test_a_ledger_finds_the_series_of_a_folder(tmp_path: Path, name: str):
    folder = tmp_path / name
    ledger = Ledger(tmp_path / "out")
    ledger.add(replace(SERIES, files=(str(folder / "1.dcm"),), series_uid="1.2"), "a")
    ledger.add(replace(SERIES, identity="other", files=(str(tmp_path / f"{name}2" / "1.dcm"),), series_uid="1.3"), "b")
    assert [entry.folder for entry in ledger.entries_of_files(folder)] == ["a"]
    assert ledger.series_uids() == {"1.2", "1.3"}
    ledger.close()

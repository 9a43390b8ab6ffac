"""Time grows with the number of files, not with its square: no step looks through all of them for each of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.batch_runs.find import FoundSeries, fingerprint_of
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.batch_runs.names import plain_folder
from medmaskrcnn.batch_runs.reasons import without_paths
from medmaskrcnn.batch_runs.summary import hidden_paths

SERIES = FoundSeries("1.2", "queued", None, (), "f", "p", "s", "ct", patient_id="p", study_date="20260101")


def test_a_folder_is_listed_once_for_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(50):
        (tmp_path / f"{i}.nii.gz").touch()
    listed = []
    inner = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or inner(folder))
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("each glob lists the folder"))
    assert len({fingerprint_of([tmp_path / f"{i}.nii.gz"]) for i in range(50)}) == 50
    assert len(listed) == 1


def test_a_fingerprint_knows_the_voxels_beside_a_header(tmp_path: Path):
    header, voxels = tmp_path / "a[1].nhdr", tmp_path / "a[1].raw"
    header.touch()
    alone = fingerprint_of([header])
    voxels.touch()
    beside = fingerprint_of([header])
    voxels.write_bytes(b"x")
    assert len({alone, beside, fingerprint_of([header])}) == 3


def test_plain_names_do_not_look_through_all_others():
    class Asked(set[str]):
        def __iter__(self) -> Iterator[str]:
            pytest.fail("a look through all names for each name")

    taken = Asked()
    for _ in range(5):
        taken.add(plain_folder(replace(SERIES, description="ct"), taken).lower())
    assert len(taken) == 5


def test_a_reason_is_searched_for_the_paths_that_it_holds(monkeypatch: pytest.MonkeyPatch):
    files = tuple(f"/archive/Miller/{i:06d}.dcm" for i in range(5000))
    paths = hidden_paths(replace(SERIES, files=files))
    searches = []
    inner = re.sub
    monkeypatch.setattr(re, "sub", lambda *arguments: searches.append(1) or inner(*arguments))
    assert without_paths(f"{files[-1]}: damaged", paths) == "<source>: damaged"
    assert len(searches) < 10


@pytest.mark.parametrize("name", ["plain", "Größe", 'a"b', "back\\slash"])
def test_a_ledger_finds_the_series_of_a_folder(tmp_path: Path, name: str):
    folder = tmp_path / name
    ledger = Ledger(tmp_path / "out")
    ledger.add(replace(SERIES, files=(str(folder / "1.dcm"),), series_uid="1.2"), "a")
    ledger.add(replace(SERIES, identity="other", files=(str(tmp_path / f"{name}2" / "1.dcm"),), series_uid="1.3"), "b")
    assert [entry.folder for entry in ledger.entries_of_files(folder)] == ["a"]
    assert ledger.series_uids() == {"1.2", "1.3"}
    ledger.close()

"""A folder of results: whole or not at all, the same bytes for the same work, and no word of the patient."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export import write
from medmaskrcnn.export.write import FILE_NAMES, FORMATS, write_result
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Provenance, Volume

Case = tuple[CaseResult, Volume]


ALWAYS = ["instances", "run", *FORMATS]


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_all_files_are_written(case: Case, tmp_path: Path) -> None:
    paths = write_result(*case, tmp_path / "deep" / "out")
    assert {name: path.name for name, path in paths.items()} == {name: FILE_NAMES[name] for name in ALWAYS}
    assert sorted(content(tmp_path / "deep" / "out")) == sorted(FILE_NAMES[name] for name in ALWAYS)
    assert all(path.stat().st_size > 50 for path in paths.values())
    assert load_case(paths["instances"]).record == case[0].record


def test_result_and_run_are_always_written(case: Case, tmp_path: Path) -> None:
    assert list(write_result(*case, tmp_path, formats=["csv"])) == ["instances", "run", "csv"]
    assert sorted(content(tmp_path)) == ["instances.csv", "instances.npz", "run.json"]


def test_same_work_is_the_same_bytes(case: Case, tmp_path: Path) -> None:
    result, volume = case
    write_result(result, volume, tmp_path / "a")
    write_result(replace(result, run={"host": "elsewhere"}), volume, tmp_path / "b")
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert first.pop("run.json") != second.pop("run.json")
    assert first == second


def test_no_path_and_no_patient_outside_run_json(case: Case, tmp_path: Path) -> None:
    paths = write_result(*case, tmp_path)
    for name, path in paths.items():
        data = path.read_bytes()
        if name == "nifti":
            data = gzip.decompress(data)
        if name == "instances":
            with zipfile.ZipFile(path) as archive:
                data = b"".join(archive.read(entry) for entry in archive.namelist())
        found = any(word in data for word in (b"DOE", b"patients", b"ward-7", os.fsencode(tmp_path)))
        assert found == (name == "run"), name


def test_a_later_run_replaces_an_earlier_one_and_removes_what_is_stale(case: Case, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_result(*case, tmp_path)
    before = content(tmp_path)
    result, volume = case
    write_result(replace(result, score_threshold=0.85), volume, tmp_path, formats=["json"])
    after = content(tmp_path)
    assert sorted(after) == ["instances.npz", "notes.txt", "result.json", "run.json"]
    assert after["result.json"] != before["result.json"] and after["notes.txt"] == b"mine"


def test_files_of_others_are_left_alone(case: Case, tmp_path: Path) -> None:
    (tmp_path / "preview.png").write_text("not ours: there is no instances.npz beside it")
    write_result(*case, tmp_path, formats=["csv"])
    assert "preview.png" in content(tmp_path)


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
def test_a_failure_leaves_everything_as_it_was(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, message: str
) -> None:
    def fails(result: CaseResult, volume: Volume, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    write_result(*case, tmp_path / "out", formats=["csv"])
    before = content(tmp_path / "out")
    monkeypatch.setitem(write._WRITERS, name, fails)
    with pytest.raises(OutputError, match=message):
        write_result(*case, tmp_path / "out")
    assert content(tmp_path / "out") == before
    with pytest.raises(OutputError, match="Nothing was left half-written"):
        write_result(*case, tmp_path / "new" / "deeper")
    assert sorted(content_names(tmp_path)) == ["out"]


def content_names(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


LIMITED = """
import resource, sys
sys.path.insert(0, {folder!r})
from conftest import SHAPE, make_case, spl_affine
from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.structures.grid import Grid
case = make_case(Grid(SHAPE, spl_affine()))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write_result(*case, {out!r})
except OutputError as error:
    sys.exit(f"refused: {{error}}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
@pytest.mark.parametrize("limit", [100, 3000])
def test_the_systems_own_refusal_in_the_middle_of_a_file(tmp_path: Path, limit: int) -> None:
    """A real short write: at 100 bytes the first file fails, at 3,000 the preview, with five files complete."""
    out = tmp_path / "out"
    code = LIMITED.format(folder=str(Path(__file__).parent), limit=limit, out=str(out))
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("refused: cannot write the result"), done.stderr
    assert "larger than the system allows" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_without_permission(case: Case, locked_folder: Path) -> None:
    with pytest.raises(OutputError, match="no permission"):
        write_result(*case, locked_folder / "out")


def test_output_is_a_file(case: Case, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_result(*case, tmp_path / "out")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_result(*case, tmp_path / "out" / "deeper")


def test_a_folder_is_in_the_way(case: Case, tmp_path: Path) -> None:
    (tmp_path / "labels.nii.gz").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        write_result(*case, tmp_path)
    assert content_names(tmp_path) == ["labels.nii.gz"]


def test_the_scan_itself_is_never_overwritten(case: Case, tmp_path: Path) -> None:
    result, volume = case
    scan = tmp_path / "labels.nii.gz"
    scan.write_text("the scan")
    volume = replace(volume, provenance=Provenance(files=(str(tmp_path / "." / "labels.nii.gz"),)))
    with pytest.raises(OutputError, match="it is the scan itself"):
        write_result(result, volume, tmp_path)
    assert content(tmp_path) == {"labels.nii.gz": b"the scan"}


def test_wrong_arguments(case: Case, picture: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formats must be a list out of"):
        write_result(*case, tmp_path, formats=["dicom"])
    with pytest.raises(ValueError, match="formats must be a list"):
        write_result(*case, tmp_path, formats="csv")
    with pytest.raises(ValueError, match="the result lies on"):
        write_result(case[0], picture[1], tmp_path)
    assert FORMATS == ("nifti", "csv", "json", "png") and content_names(tmp_path) == []

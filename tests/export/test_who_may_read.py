"""Files that say who the patient is are for their owner alone, with the folders made for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmaskrcnn.export.write import write_result
from medmaskrcnn.system.files import make_folder, open_private, replacing_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_dicom_is_private_with_its_folders(ct_case, tmp_path: Path):
    pytest.importorskip("highdicom")
    out = tmp_path / "patient" / "study"
    write_result(*ct_case, out, formats=["seg", "rtstruct", "json"])
    assert mode(out) == mode(out.parent) == 0o700
    assert [mode(out / name) for name in ("segmentation.dcm", "contours.dcm", "run.json")] == [0o600] * 3
    assert mode(tmp_path) == 0o700 or mode(tmp_path) == 0o755  # what was there keeps its rights


def test_what_names_nobody_is_readable(ct_case, tmp_path: Path):
    write_result(*ct_case, tmp_path / "out", formats=["json", "nifti"], paths_in_run=False)
    assert mode(tmp_path / "out") == 0o755
    assert all(mode(file) == 0o644 for file in (tmp_path / "out").iterdir())


def test_deidentified_dicom_is_readable(ct_case, tmp_path: Path):
    pytest.importorskip("highdicom")
    write_result(*ct_case, tmp_path / "out", formats=["seg"], deidentify=True)
    assert mode(tmp_path / "out") == 0o755
    assert mode(tmp_path / "out" / "segmentation.dcm") == 0o644


def test_a_folder_that_was_there_keeps_its_rights_and_its_file_does_not(ct_case, tmp_path: Path):
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    out.mkdir(mode=0o755)
    write_result(*ct_case, out, formats=["seg"])
    assert mode(out) == 0o755 and mode(out / "segmentation.dcm") == 0o600


def test_private_files_and_folders(tmp_path: Path):
    (tmp_path / "old").touch(mode=0o644)
    with open_private(tmp_path / "old") as stream:
        assert mode(tmp_path / "old") == 0o600
        stream.write(b"x")
    assert mode(make_folder(tmp_path / "a" / "b", private=True)) == mode(tmp_path / "a") == 0o700
    with replacing_folder(tmp_path / "c" / "d", staging_in=tmp_path / "s", private=True) as folder:
        (folder / "x").touch()
    assert mode(tmp_path / "c" / "d") == mode(tmp_path / "c") == 0o700
    with replacing_folder(tmp_path / "e" / "f", staging_in=tmp_path / "s") as folder:
        (folder / "x").touch()
    assert mode(tmp_path / "e" / "f") == mode(tmp_path / "e") == 0o755

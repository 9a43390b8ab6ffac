"""A small part of ``benchmarks/fuzz.py``, and the two attacks that have names."""

from __future__ import annotations

import importlib.util
import io
import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io import sources
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.read import read_volume

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
COUNT = 60


@pytest.fixture(scope="module")
def fuzz_readers():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its worker processes look it up by name
    sys.path.insert(0, str(SCRIPT.parent))
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))


@pytest.mark.slow
def test_damaged_files_give_our_errors_alone(fuzz_readers, tmp_path):
    # a program of its own: its worker processes must not depend on what other tests left in this one
    command = [sys.executable, str(SCRIPT), "--count", str(COUNT), "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["findings"] == []
    assert sum(report["outcomes"].values()) == COUNT
    assert report["peak_megabytes"] < fuzz_readers.MAX_MEGABYTES
    read = sum(n for what, n in report["outcomes"].items() if what.endswith(": read"))
    assert 0.1 * COUNT < read < 0.9 * COUNT  # the damage is neither always fatal nor never felt


def test_a_case_is_the_same_each_time(fuzz_readers, tmp_path):
    corpus = fuzz_readers.write_corpus(tmp_path)
    one, again, other = (fuzz_readers.Case(corpus, 7, n) for n in (3, 3, 4))
    assert (one.source, one.content) == (again.source, again.content)
    assert (one.source, one.content) != (other.source, other.content)
    assert one.content != one.source.read_bytes()


@pytest.fixture
def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9)).save(stream, "PNG")
    return stream.getvalue()


OUTSIDE = ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png", "a/b/../../../evil.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_unpacked_outside(tmp_path, picture, name, monkeypatch):
    """Zip slip: names that lead out of the folder are left out and told; the rest is read."""
    home = tmp_path / "temporary"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, picture)
        archive.writestr("good.png", picture)
    (found,) = find_scans(path)
    volume = found.read()
    assert volume.array.shape == (1, 1, 7, 9)
    assert any("lead outside" in note for note in volume.provenance.notes)
    assert not list(tmp_path.rglob("*evil*"))
    assert found.info.path.startswith(str(path))
    del found, volume
    assert list(home.iterdir()) == []


def test_links_in_archives_are_not_followed(tmp_path, picture):
    (tmp_path / "secret.png").write_bytes(picture)
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret.png"))
    with pytest.raises(ReadError, match="holds no file"):
        find_scans(path)


def test_bombs_are_refused_before_they_go_off(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as stream:
        for _ in range(300):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 2**20
    with pytest.raises(ReadError, match=r"bomb.zip unpacks to 314,572,800 bytes from .*: no archive of scans does"):
        read_volume(path)


def test_a_bomb_whose_table_lies_is_stopped_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "HARMLESS_BYTES", 1 << 20)
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(5 << 20))
    monkeypatch.setattr(sources, "_check_members", lambda path, members: None)
    with pytest.raises(ReadError, match="unpacks to more than its table says"):
        read_volume(path)


def test_archives_that_cannot_be_read_say_why(tmp_path, picture):
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", picture)
    good = path.read_bytes()
    path.write_bytes(good[:-30])
    with pytest.raises(ReadError, match="zip archive"):
        read_volume(path)
    encrypted = bytearray(good)
    encrypted[6] |= 1
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(encrypted))
    with pytest.raises(ReadError, match="is encrypted"):
        read_volume(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ReadError, match="holds no file"):
        read_volume(path)


def test_a_case_by_field_stays_well_formed(fuzz_readers, tmp_path):
    """A value of a manifest, a model, a result, a header and a DICOM object becomes another one."""
    corpus = fuzz_readers.write_corpus(tmp_path)
    rng = np.random.default_rng(0)
    for path in (file for files in corpus.values() for file in files):
        if path.suffix in (".json", ".npz", ".safetensors", ".nrrd", ".mha", ".dcm"):
            made = [fuzz_readers.changed(path.name, path.read_bytes(), rng) for _ in range(4)]
            assert any(one is not None and one != path.read_bytes() for one in made), path.name


@pytest.mark.slow
def test_parts_are_not_run_twice(fuzz_readers, tmp_path, monkeypatch):
    """A worker of its own, which loads torch."""
    monkeypatch.setattr(fuzz_readers, "PART", 3)
    report = fuzz_readers.fuzz_in_parts(5, 0, 1, tmp_path / "parts")
    assert report["cases"] == 5 and report["findings"] == []
    assert len(list((tmp_path / "parts").iterdir())) == 2
    monkeypatch.setattr(fuzz_readers, "fuzz", lambda *_: pytest.fail("a part is run again"))
    assert fuzz_readers.fuzz_in_parts(5, 0, 1, tmp_path / "parts") == report


@pytest.mark.parametrize("name", ["9" * 400, "a\0b", "x/" * 3000])
def test_names_that_no_file_can_have(tmp_path, name):
    from medmaskrcnn.io.labels.label_volume import read_label_volume

    for read in (read_volume, read_label_volume, find_scans):
        with pytest.raises(ReadError):
            read(tmp_path / name)

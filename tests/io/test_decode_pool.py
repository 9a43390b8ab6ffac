"""Decoding in processes gives what decoding here gives, and what goes wrong there is told here."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from pydicom import uid

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom import decode_pool
from medmaskrcnn.io.read import read_volume


@pytest.fixture
def planes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (7, 40, 36)).astype(np.uint16)


@pytest.fixture
def folder(new_slice, planes, write_series):
    made = [new_slice(i, plane) for i, plane in enumerate(planes)]
    for one in made:
        one.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    return write_series(made)


@pytest.fixture
def always(monkeypatch):
    """Processes even for a tiny series on a busy machine."""
    monkeypatch.setattr(decode_pool, "_PAYS_FROM_S", 0.0)
    monkeypatch.setattr(decode_pool, "_idle_cores", lambda: 2)


@pytest.fixture
def workers(monkeypatch):
    """The workers that are started."""
    started = []

    class Watched(decode_pool._Worker):
        def __init__(self) -> None:
            super().__init__()
            started.append(self.process)

    monkeypatch.setattr(decode_pool, "_Worker", Watched)
    return started


def test_the_same_voxels(folder, planes, always, workers, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume(folder).array[0], planes.astype(int) - 1024)
    assert len(workers) == 2
    assert all(process.poll() is not None for process in workers)  # none is left running


def test_a_small_series_is_decoded_here(folder, planes, workers, monkeypatch):
    monkeypatch.setattr(decode_pool, "_idle_cores", lambda: 2)
    np.testing.assert_array_equal(read_volume(folder).array[0], planes.astype(int) - 1024)
    assert workers == []


def test_a_damaged_slice_is_named(folder, always, workers):
    path = folder / "004.dcm"
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start + 4 : start + 30] = bytes(26)
    path.write_bytes(bytes(content))
    with pytest.raises(ReadError, match=r"004\.dcm cannot be read as DICOM; it may be damaged"):
        read_volume(folder)
    assert all(process.poll() is not None for process in workers)


def test_a_decoder_that_ends_its_process_ends_a_worker_alone(folder, always, monkeypatch):
    class Dying(decode_pool._Worker):
        def decode(self, path):
            if path.name == "003.dcm":
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait()
            return super().decode(path)

    monkeypatch.setattr(decode_pool, "_Worker", Dying)
    with pytest.raises(ReadError, match=r"003\.dcm cannot be decoded: the decoder stopped"):
        read_volume(folder)


def test_without_processes_reading_goes_on(folder, planes, always, monkeypatch):
    def refuse() -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(decode_pool, "_Worker", refuse)
    np.testing.assert_array_equal(read_volume(folder).array[0], planes.astype(int) - 1024)

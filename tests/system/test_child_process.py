"""Programs of our own and the messages to them: whole, in pieces, cut off, and from a program that dies."""

from __future__ import annotations

import io
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.system.child_process import Channel, ChildProcess

ARRAYS = [np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1], np.zeros((0, 4), np.float32), np.array(True)]

ECHO = """
import sys, time
from medmaskrcnn.system.child_process import channel_to_parent

parent = channel_to_parent()
print("what a library prints")
print("what it complains of", file=sys.stderr)
while True:
    fields, arrays = parent.receive()
    if fields.get("sleep"):
        time.sleep(600)
    if "exit" in fields:
        sys.exit(fields["exit"])
    parent.send(fields, arrays)
"""


def written(fields: dict[str, object], arrays: list[np.ndarray]) -> bytes:
    pipe = io.BytesIO()
    Channel(pipe, pipe).send(fields, arrays)
    return pipe.getvalue()


class InPieces(io.BytesIO):
    """A pipe that never gives more than three bytes at once."""

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        return super().readinto(into[:3])


@pytest.mark.parametrize("kind", [io.BytesIO, InPieces])
def test_a_message_comes_out_as_it_went_in(kind: type[io.BytesIO]) -> None:
    fields, arrays = Channel(kind(written({"name": "\u00c5", "n": [1, None]}, ARRAYS)), io.BytesIO()).receive()
    assert fields == {"name": "\u00c5", "n": [1, None]}
    for got, sent in zip(arrays, ARRAYS, strict=True):
        assert got.dtype == sent.dtype and got.flags.writeable
        np.testing.assert_array_equal(got, sent)


def test_what_is_cut_off_or_no_message() -> None:
    whole = written({"a": 1}, ARRAYS)
    for length in (0, 5, 40, len(whole) - 1):
        with pytest.raises(EOFError):
            Channel(io.BytesIO(whole[:length]), io.BytesIO()).receive()
    with pytest.raises(ValueError, match="no message of ours"):
        Channel(io.BytesIO(b"\xff" * 64), io.BytesIO()).receive()
    with pytest.raises(ValueError, match="no message of ours"):
        written({}, [np.array([None, {}])])
    objects = whole.replace(b'"<i2"', b'"|O" ')
    with pytest.raises(ValueError, match="no message of ours"):
        Channel(io.BytesIO(objects), io.BytesIO()).receive()


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildProcess]:
    (tmp_path / "echo_program.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    process = ChildProcess("echo_program", quiet=True)
    yield process
    process.close()


def test_a_program_answers(echo: ChildProcess) -> None:
    large = np.random.default_rng(0).integers(0, 255, 3 << 20, np.uint8)  # more than a pipe holds
    threads = [threading.Thread(target=echo.send, args=({"n": n}, [large])) for n in range(2)]
    for thread in threads:
        thread.start()
    answers = [echo.receive() for _ in threads]
    for thread in threads:
        thread.join()
    assert sorted(fields["n"] for fields, _ in answers) == [0, 1]
    assert all(np.array_equal(arrays[0], large) for _, arrays in answers)
    assert echo.poll() is None


def test_a_program_that_ends(echo: ChildProcess) -> None:
    echo.send({"exit": 3})
    with pytest.raises(EOFError):
        echo.receive()
    assert echo.wait(10) == 3
    with pytest.raises(OSError):
        echo.send({}, [np.zeros(1 << 20, np.uint8)])


def test_close_ends_what_is_at_work(echo: ChildProcess) -> None:
    echo.send({})
    echo.receive()
    echo.send({"sleep": True})
    with pytest.raises(subprocess.TimeoutExpired):
        echo.wait(0.2)
    ends: list[type[BaseException]] = []

    def receive() -> None:
        try:
            echo.receive()
        except EOFError:
            ends.append(EOFError)

    waiting = threading.Thread(target=receive)
    waiting.start()
    began = time.monotonic()
    echo.close(patience_s=0.2)
    assert time.monotonic() - began < 10
    waiting.join(10)
    assert ends == [EOFError] and echo.poll() not in (None, 0)
    with pytest.raises(ValueError, match="closed"):
        echo.send({})

"""Run one of our modules as a child process and exchange messages with it.

The program is started as ``python -m module``, not by ``multiprocessing``: none of the caller's state is copied into
it, a user's script needs no ``if __name__ == "__main__"``, and a crash of the program does not end the caller. Messages
go through its standard input and output. Each is the length of a JSON header (8 bytes, little-endian), the header, then
the bytes of each array that the header lists. Nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, Any]
Arrays = list[NDArray[Any]]

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 28
_KILLED_S = 10.0


class Channel:
    """A message channel over one stream to read from and one to write to.

    Any thread may send. One thread at a time may receive.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer, self._lock = reader, writer, Lock()

    def send(self, fields: Fields, arrays: Sequence[NDArray[Any]] = ()) -> None:
        """Write a message; returns when all of it is in the pipe.

        Args:
            fields: Values that JSON can hold.
            arrays: Arrays of any shape, sent as their bytes.

        Raises:
            OSError: if the other side is gone.
            ValueError: if this side is closed.
        """
        listed = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
        header = json.dumps({"fields": fields, "arrays": listed}).encode()
        with self._lock:
            self._writer.write(_LENGTH.pack(len(header)) + header)
            for array in arrays:
                if array.size:
                    self._writer.write(_bytes_of(np.ascontiguousarray(array)))
            self._writer.flush()

    def receive(self) -> tuple[Fields, Arrays]:
        """Wait for a message; the arrays are writable.

        Raises:
            EOFError: if the other side is gone, even in the middle of a message.
            ValueError: if the data received is not a message.
        """
        length_bytes = np.empty(_LENGTH.size, np.uint8)
        self._fill(length_bytes)
        (length,) = _LENGTH.unpack(length_bytes.tobytes())
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes is no message of ours")
        header_bytes = np.empty(length, np.uint8)
        self._fill(header_bytes)
        header = json.loads(header_bytes.tobytes())
        arrays = [np.empty(listed["shape"], listed["dtype"]) for listed in header["arrays"]]
        for array in arrays:
            self._fill(array)
        return header["fields"], arrays

    def _fill(self, array: NDArray[Any]) -> None:
        """Read directly into an array, in several reads if the pipe holds only part of it."""
        view = _bytes_of(array) if array.size else memoryview(b"")
        done = 0
        while done < len(view):
            n_read = self._reader.readinto(view[done:])  # type: ignore[attr-defined] # a buffered reader has it
            if not n_read:
                raise EOFError("the other process is gone")
            done += n_read


class ChildProcess(Channel):
    """A program ``python -m module`` with this process's import path, and the channel to it.

    Args:
        module: Name of the module; the program communicates through :func:`channel_to_parent`.
        quiet: Discard its standard error, which otherwise goes to that of this process.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, module: str, *, quiet: bool = False) -> None:
        # -P: the current folder holds the user's files, which must not be imported.
        command = [sys.executable, "-P", "-m", module]
        paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        super().__init__(self._process.stdout, self._process.stdin)

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; ``None`` while the program runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the program to end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: if it has not ended by then.
        """
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """Kill the program at once; a thread that is receiving from it gets :class:`EOFError`."""
        self._process.kill()

    def close(self, *, patience_s: float = 0.0) -> None:
        """Make sure that the program has ended and its memory is free, and close the pipes.

        A killed program that does not end, which only a hanging device can cause, is left to the system with a warning.

        Args:
            patience_s: Seconds to wait for it to end by itself before it is killed.
        """
        try:
            self.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            try:
                self.wait(_KILLED_S)
            except subprocess.TimeoutExpired:
                log.warning("process %d was killed and has not ended; a device that it uses may hang", self.pid)
        for pipe in (self._writer, self._reader):
            with suppress(OSError):  # unsent data cannot be delivered any more
                pipe.close()


def channel_to_parent() -> Channel:
    """The channel to the process that started this program; from now on, prints go to standard error."""
    writer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Channel(sys.stdin.buffer, writer)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The memory of a contiguous array, without a copy; raises ValueError if it holds Python objects."""
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} is no message of ours")
    return array.reshape(-1).view(np.uint8).data

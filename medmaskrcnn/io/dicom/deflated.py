"""Bounds what a deflated DICOM file unpacks to (PS3.5, A.5): 3 MB can hold 6 GB, and a parser unpacks all of it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import HARMLESS_BYTES, check_inflation

_PREAMBLE = 132
_HEAD = 1 << 16
_CHUNK = 1 << 20
_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR")


def check_deflated(path: Path) -> None:
    """Unpack a deflated DICOM file without keeping anything, and refuse it if there is too much; other files pass.

    Raises:
        ReadError: if it unpacks to far more than scans do, or to more than there is memory.
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        start = _start_of_deflated(stream.read(_HEAD))
        if start is None:
            return
        stored = stream.seek(0, 2) - start
        stream.seek(start)
        _unpack(path, stream, stored)


def _start_of_deflated(head: bytes) -> int | None:
    """Where the data set begins, after the file's meta information, if the transfer syntax is the deflated one."""
    if head[_PREAMBLE - 4 : _PREAMBLE] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in head:
        return None
    position, deflated = _PREAMBLE, False
    while head[position : position + 2] == b"\x02\0":
        is_long = head[position + 4 : position + 6] in _LONG
        begins = position + (12 if is_long else 8)
        length = int.from_bytes(head[begins - (4 if is_long else 2) : begins], "little")
        if head[position + 2 : position + 4] == b"\x10\0":
            value = head[begins : begins + length].decode("latin-1").strip("\0 ")
            deflated = value == DeflatedExplicitVRLittleEndian
        position = begins + length
    return position if deflated else None


def _unpack(path: Path, stream: BinaryIO, stored: int) -> None:
    inflater, total, checked = zlib.decompressobj(-zlib.MAX_WBITS), 0, HARMLESS_BYTES
    try:
        while not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(_CHUNK)):
            total += len(inflater.decompress(chunk, _CHUNK))
            if total > checked:
                check_inflation(path, 2 * total, 2 * stored, "its deflated attributes")  # twice: unpacked, then parsed
                checked += HARMLESS_BYTES // 4
    except zlib.error as error:
        raise ReadError(f"{path}: its deflated data is damaged ({error}). Copy or export it again") from error

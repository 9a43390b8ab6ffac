"""Reads the attributes of a DICOM header that this package needs, many times faster than a general parser.

For a series of hundreds of files most time goes into headers. The file's first bytes are parsed once (DICOM PS3.5,
7.1), all but the wanted elements are skipped, and only these values are converted. Whatever is not plain
(another byte order, a deflated file, functional groups, text beyond ASCII, anything malformed) is left to pydicom:
:func:`quick_attributes` then returns ``None``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

HEAD_BYTES = 1 << 16
"""Number of bytes of a file that are parsed; longer headers are left to pydicom."""

_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UT", b"UN", b"UC", b"UR", b"SV", b"UV"})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE00010
_FILE_META = {0x00020002: "MediaStorageSOPClassUID", 0x00020010: "TransferSyntaxUID"}
_UNDEFINED = 0xFFFFFFFF
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}
_MAX_DEPTH = 16


class _NotPlain(Exception):
    """The file needs a real parser."""


def wanted_tags(keywords: Iterable[str]) -> dict[int, tuple[str, str]]:
    """Keyword and value representation by tag, for :func:`quick_attributes`."""
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {int(tag): (keyword, dictionary_VR(tag)) for keyword, tag in tags.items() if tag is not None}


def quick_attributes(head: bytes, wanted: dict[int, tuple[str, str]]) -> tuple[dict[str, Any], int] | None:
    """Parse the header at the beginning of a file.

    Args:
        head: Its first :data:`HEAD_BYTES` bytes, or all of it.
        wanted: See :func:`wanted_tags`.

    Returns:
        Values by keyword as pydicom would give them (text, numbers, or lists of these), with Transfer Syntax UID
        (0002,0010) and Media Storage SOP Class UID (0002,0002), and the byte of the file at which the value of Pixel
        Data begins; ``None`` if the file is not plain.
    """
    try:
        return _walk(head, wanted)
    except (_NotPlain, struct.error, ValueError, IndexError):
        return None


def _walk(head: bytes, wanted: dict[int, tuple[str, str]]) -> tuple[dict[str, Any], int]:
    if head[128:132] != b"DICM":
        raise _NotPlain
    position = 132
    values: dict[str, Any] = {}
    while head[position : position + 2] == b"\x02\0":
        tag, vr, length, position = _element(head, position, explicit=True)
        if tag in _FILE_META:
            values[_FILE_META[tag]] = _text(head[position : position + length])
        position += length
    syntax = values.get("TransferSyntaxUID")
    if not syntax or syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        raise _NotPlain
    explicit = syntax != ImplicitVRLittleEndian
    while position < len(head):
        tag, vr, length, position = _element(head, position, explicit=explicit)
        if tag >= _PIXELS:
            if tag != _PIXELS:
                raise _NotPlain
            return values, position
        if tag in wanted:
            keyword, usual_vr = wanted[tag]
            if length == _UNDEFINED or usual_vr == "SQ" or position + length > len(head):
                raise _NotPlain
            value = _value(head[position : position + length], vr.decode("ascii") if explicit else usual_vr)
            if value is not None:
                values[keyword] = value
        if length == _UNDEFINED:
            if vr == b"UN":
                raise _NotPlain
            position = _after_sequence(head, position, explicit, 0)
        else:
            position += length
    raise _NotPlain  # no pixel data, or beyond what was read


def _element(head: bytes, position: int, *, explicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR and length of an element, and the position of its value."""
    group, number = struct.unpack_from("<HH", head, position)
    tag = group << 16 | number
    if not explicit or group == 0xFFFE:
        return tag, b"", struct.unpack_from("<I", head, position + 4)[0], position + 8
    vr = head[position + 4 : position + 6]
    if not (vr.isalpha() and vr.isupper()):
        raise _NotPlain
    if vr in _LONG:
        return tag, vr, struct.unpack_from("<I", head, position + 8)[0], position + 12
    return tag, vr, struct.unpack_from("<H", head, position + 6)[0], position + 8


def _after_sequence(head: bytes, position: int, explicit: bool, depth: int) -> int:
    """End of a sequence of undefined length; ``position`` is that of its first item."""
    if depth > _MAX_DEPTH:
        raise _NotPlain
    while True:
        tag, _, length, position = _element(head, position, explicit=explicit)
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise _NotPlain
        position = _after_item(head, position, explicit, depth) if length == _UNDEFINED else position + length


def _after_item(head: bytes, position: int, explicit: bool, depth: int) -> int:
    while True:
        tag, vr, length, position = _element(head, position, explicit=explicit)
        if tag == _ITEM_END:
            return position
        if length != _UNDEFINED:
            position += length
        elif vr == b"UN":
            raise _NotPlain
        else:
            position = _after_sequence(head, position, explicit, depth + 1)


def _value(raw: bytes, vr: str) -> Any:
    """Text or numbers, alone or in a list; ``None`` for an empty element."""
    if vr in _NUMBERS:
        size = struct.calcsize(_NUMBERS[vr])
        numbers = list(struct.unpack(f"<{len(raw) // size}{_NUMBERS[vr]}", raw))
        return numbers[0] if len(numbers) == 1 else numbers or None
    text = _text(raw)
    if not text:
        return None
    parts = [part.strip() for part in text.split("\\")]
    if vr == "DS":
        found: list[Any] = [float(part) for part in parts]
    elif vr == "IS":
        found = [int(part) for part in parts]
    elif vr in ("UI", "CS", "LO", "SH", "TM", "DA", "DT"):
        found = parts
    else:
        raise _NotPlain
    return found[0] if len(found) == 1 else found


def _text(raw: bytes) -> str:
    if not raw.isascii() or b"\x1b" in raw:
        raise _NotPlain  # another character set
    return raw.decode("ascii").strip(" \0")

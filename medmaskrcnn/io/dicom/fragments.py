"""The fragments of encapsulated pixel data, read as leniently as their bytes allow (DICOM PS3.5, annex A.4).

Encapsulated Pixel Data (7FE0,0010) is a list of items: an offset table, fragments of the compressed frames, and an end
mark. Many writers deviate: the end mark is missing, zeroed or followed by other bytes, a length is given where it
should be undefined, items have an odd length with or without a pad byte, the offset table is missing or wrong, a code
stream stands there without any item. All of that leaves the fragments themselves whole, and this is the only place
that reads them: :mod:`~medmaskrcnn.io.dicom.header` to see whether the file is complete, and
:mod:`~medmaskrcnn.io.dicom.pixels` to decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_STARTS = (_JPEG, _JPEG_2000)

_SYNTAXES: dict[int, tuple[UID, ...]] = {
    0xC0: (JPEGBaseline8Bit, JPEGExtended12Bit),
    0xC1: (JPEGExtended12Bit,),
    0xC3: (JPEGLossless, JPEGLosslessSV1),
    0xF7: (JPEGLSLossless, JPEGLSNearLossless),
}
"""Transfer syntaxes by the mark of a JPEG code stream's frame header; the first if another is declared."""
_SYNTAXES_2000 = (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)


@dataclass(frozen=True)
class Fragments:
    """Where the fragments of a file lie.

    Attributes:
        places: Byte offset in the file and length of each fragment, the offset table left out.
        offsets: The Basic Offset Table: first byte of each frame's first item, from the first fragment's item on.
        is_complete: False if the file ends within a fragment, or has none.
    """

    places: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]
    is_complete: bool


def find_fragments(stream: BinaryIO, start: int, length: int = UNDEFINED) -> Fragments:
    """Find the fragments of encapsulated pixel data.

    Args:
        stream: The file.
        start: Byte offset of the value of Pixel Data.
        length: Length of the value in bytes, :data:`UNDEFINED` as it should be, or another where a writer gave one.
    """
    stop = stream.seek(0, 2)
    if length != UNDEFINED:
        stop = min(stop, start + length)
    items: list[tuple[int, int]] = []
    position, is_complete = start, True
    while (found := _item_at(stream, position, odd=bool(items) and items[-1][1] % 2 == 1)) is not None:
        place, size = found
        if size == UNDEFINED or place + size > stop:
            is_complete = False
            break
        items.append((place, size))
        position = place + size
    if not items and is_complete and _bytes_at(stream, start, 4)[:3] in (_JPEG, _JPEG_2000[:3]):
        return Fragments(((start, stop - start),), (), True)  # a code stream without any item around it
    has_table = bool(items) and not _is_code(stream, items[0])
    table = items.pop(0) if has_table else (start, 0)
    offsets = _bytes_at(stream, *table)
    numbers = tuple(int.from_bytes(offsets[i : i + 4], "little") for i in range(0, len(offsets) - 3, 4))
    return Fragments(tuple(items), numbers, is_complete and bool(items))


def read_encoded_frames(stream: BinaryIO, fragments: Fragments, n_frames: int) -> list[bytes]:
    """The compressed bytes of each frame.

    Raises:
        ValueError: if the fragments do not divide into that many frames.
    """
    pieces = [_bytes_at(stream, place, size) for place, size in fragments.places]
    if n_frames == 1:
        return [b"".join(pieces)]
    if len(pieces) == n_frames:
        return pieces
    base = fragments.places[0][0]
    places = [place - base for place, _ in fragments.places]  # as the offset table counts, from item to item
    offsets = set(fragments.offsets)
    begins = [i for i, place in enumerate(places) if place in offsets]
    if len(begins) != n_frames or len(fragments.offsets) != n_frames:
        begins = [i for i, piece in enumerate(pieces) if piece.startswith(_STARTS)]
    if len(begins) != n_frames or begins[0] != 0:
        raise ValueError(
            f"{len(pieces)} fragments cannot be divided into {n_frames} frames; the pixel data is cut short"
        )
    return [b"".join(pieces[a:b]) for a, b in zip(begins, [*begins[1:], len(pieces)], strict=True)]


def syntax_of(frame: bytes, declared: UID) -> UID | None:
    """The transfer syntax of a compressed frame by its own first bytes; ``None`` if they tell nothing (RLE, native)."""
    if frame.startswith(_JPEG_2000):
        return declared if declared in _SYNTAXES_2000 else JPEG2000
    if not frame.startswith(_JPEG):
        return None
    header = frame_header(frame)
    syntaxes = _SYNTAXES.get(header[0], ()) if header else ()
    if not syntaxes:
        return None
    return declared if declared in syntaxes else syntaxes[0]


def frame_header(frame: bytes) -> tuple[int, int] | None:
    """Mark (SOF0 is 0xC0) and bits of precision of a JPEG code stream's frame header (ITU-T T.81, B.2.2)."""
    position = 2
    while position + 5 <= len(frame) and frame[position] == 0xFF:
        mark = frame[position + 1]
        if mark == 0xFF:  # a fill byte
            position += 1
        elif mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):
            return mark, frame[position + 4]
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def is_encapsulated(stream: BinaryIO, start: int, length: int, declared: str, native_bytes: int) -> bool:
    """Whether pixel data consists of items, whatever the transfer syntax says.

    Args:
        stream: The file.
        start: Byte offset of the value of Pixel Data.
        length: Its declared length in bytes.
        declared: Transfer Syntax UID (0002,0010), or "".
        native_bytes: Length of the value if it is not compressed.
    """
    syntax = UID(declared)
    if length == UNDEFINED:
        return True
    if not (syntax.is_transfer_syntax and syntax.is_compressed):
        return False
    head = _bytes_at(stream, start, 4)
    return head == _ITEM or head.startswith(_STARTS) or length < native_bytes


def _item_at(stream: BinaryIO, position: int, *, odd: bool) -> tuple[int, int] | None:
    """Place and length of the value of the item at a position, or after the pad byte of an odd one before it."""
    for shift in (0, 1) if odd else (0,):
        head = _bytes_at(stream, position + shift, 8)
        if len(head) == 8 and head[:4] == _ITEM:
            return position + shift + 8, int.from_bytes(head[4:], "little")
    return None


def _is_code(stream: BinaryIO, item: tuple[int, int]) -> bool:
    """Whether the first item holds a code stream, not the offset table that should stand there."""
    return item[1] > 4 and _bytes_at(stream, item[0], 4).startswith(_STARTS)


def _bytes_at(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    return stream.read(size)

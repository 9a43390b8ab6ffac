"""Checks that a JPEG frame is intact enough to be passed to a decoder.

gdcm, the only free decoder of lossless JPEG that installs with pip, crashes the process on some damaged frames instead
of raising. So the frame's markers are checked first (ITU-T T.81, annex B): segments that fit, one frame header that
agrees with the DICOM header, tables of their declared size, an end mark. Entropy-coded data is not decoded.
"""

from __future__ import annotations

import re

from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

JPEG_SYNTAXES: frozenset[UID] = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})
"""Transfer syntaxes of ITU-T T.81; JPEG-LS and JPEG 2000 are other formats, with decoders that raise."""

_SOI, _EOI, _SOS, _DHT, _DQT = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB
_FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC3})  # baseline, extended, lossless, all Huffman-coded and sequential
_OTHER_SEGMENTS = frozenset({_DQT, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # DQT, DRI, COM, APP0-15
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # neither a stuffed zero nor a restart mark


def check_jpeg(frame: bytes, *, rows: int, columns: int, samples: int) -> None:
    """Check the markers of one JPEG frame.

    Args:
        frame: The frame, perhaps padded after its end mark.
        rows: Rows (0028,0010) of the DICOM header.
        columns: Columns (0028,0011).
        samples: Samples per Pixel (0028,0002).

    Raises:
        ValueError: at the first thing that is wrong, with its position in the frame.
    """
    if frame[:2] != bytes((0xFF, _SOI)):
        raise ValueError("the frame does not begin with the JPEG start mark")
    position, seen_frame, seen_scan = 2, False, False
    while True:
        marker, position = _next_marker(frame, position)
        if marker == _EOI:
            if not seen_scan:
                raise ValueError("the JPEG frame ends before its image")
            return
        body = _segment(frame, position)
        position += 2 + len(body)
        if marker in _FRAME_HEADERS:
            if seen_frame:
                raise ValueError("the JPEG frame has two frame headers")
            _check_frame_header(body, rows, columns, samples)
            seen_frame = True
        elif marker == _DHT:
            _check_huffman_tables(body)
        elif marker == _SOS:
            if not seen_frame or not body or len(body) != 4 + 2 * body[0] or not 1 <= body[0] <= samples:
                raise ValueError(f"the JPEG scan header before byte {position} is damaged")
            position, seen_scan = _end_of_scan(frame, position), True
        elif marker not in _OTHER_SEGMENTS:
            raise ValueError(f"unexpected JPEG marker {marker:#04x} before byte {position}")


def _next_marker(frame: bytes, position: int) -> tuple[int, int]:
    """The marker at a position and the position after it; fill bytes may precede it (B.1.1.2)."""
    start = position
    while position < len(frame) and frame[position] == 0xFF:
        position += 1
    if position == start or position >= len(frame):
        raise ValueError(f"a JPEG marker is missing at byte {start} of {len(frame)}")
    return frame[position], position + 1


def _segment(frame: bytes, position: int) -> bytes:
    """A marker segment's content without its length field (B.1.1.4)."""
    length = int.from_bytes(frame[position : position + 2], "big")
    if length < 2 or position + length > len(frame):
        raise ValueError(f"the JPEG segment at byte {position} leaves the frame")
    return frame[position + 2 : position + length]


def _check_frame_header(body: bytes, rows: int, columns: int, samples: int) -> None:
    """Check precision, lines, samples per line, components and their sampling factors (B.2.2)."""
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise ValueError("the JPEG frame header has the wrong length")
    found = (int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5])
    if found != (rows, columns, samples) or not 2 <= body[0] <= 16:
        raise ValueError(
            f"the JPEG frame is {found} (rows, columns, samples), the header says {(rows, columns, samples)}"
        )
    factors = [nibble for i in range(7, len(body), 3) for nibble in (body[i] >> 4, body[i] & 15)]
    if not all(1 <= factor <= 4 for factor in factors):
        raise ValueError(f"the JPEG frame has impossible sampling factors {factors}")


def _check_huffman_tables(body: bytes) -> None:
    """Check each table: class and number, 16 counts, and as many values as the sum of the counts (B.2.4.2)."""
    position = 0
    while position < len(body):
        counts = body[position + 1 : position + 17]
        if len(counts) < 16 or sum(counts) > 256 or body[position] >> 4 > 1 or body[position] & 15 > 3:
            raise ValueError("a JPEG Huffman table is damaged")
        if sum(count << (15 - i) for i, count in enumerate(counts)) > 1 << 16:
            raise ValueError("a JPEG Huffman table has more codes than there can be")
        position += 17 + sum(counts)
    if position != len(body):
        raise ValueError("a JPEG Huffman table is damaged")


def _end_of_scan(frame: bytes, position: int) -> int:
    """Position of the next marker after entropy-coded data."""
    found = _MARKER_IN_SCAN.search(frame, position)
    if found is None:
        raise ValueError("the JPEG frame is cut short: it has no end mark")
    return found.end() - 2

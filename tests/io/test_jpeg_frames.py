"""Damaged JPEG frames are found by their markers: the decoder behind them would end the whole process."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.io.dicom.jpeg_check import check_jpeg


@pytest.fixture(scope="module")
def frame() -> bytes:
    """A baseline JPEG of 24 rows and 40 columns."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def check(frame: bytes, rows: int = 24, columns: int = 40, samples: int = 1) -> None:
    check_jpeg(frame, rows=rows, columns=columns, samples=samples)


def changed(frame: bytes, marker: int, offset: int, value: int) -> bytes:
    """The frame with one byte of its first segment of a kind replaced; offset 0 is the segment's length."""
    position = frame.index(bytes((0xFF, marker))) + 2 + offset
    return frame[:position] + bytes([value]) + frame[position + 1 :]


def test_sound_frames_pass(frame):
    check(frame)
    check(frame + b"\0")  # padded to an even length
    stream = io.BytesIO()
    Image.new("RGB", (40, 24), "red").save(stream, "JPEG", restart_marker_blocks=1)
    check(stream.getvalue(), samples=3)


@pytest.mark.parametrize(
    ("marker", "offset", "value", "message"),
    [
        (0xC0, 2, 99, r"impossible|frame is"),  # precision
        (0xC0, 4, 25, r"frame is \(25, 40, 1\).*header says \(24, 40, 1\)"),
        (0xC0, 9, 0xF1, "sampling factors"),
        (0xC4, 3, 200, "Huffman table"),
        (0xC4, 2, 0x25, "Huffman table"),
        (0xDA, 2, 9, "scan header"),
        (0xDB, 0, 0xF0, "leaves the frame"),
        (0xE0, -1, 0x02, "unexpected JPEG marker 0x02"),
    ],
)
def test_damaged_segments_are_found(frame, marker, offset, value, message):
    with pytest.raises(ValueError, match=message):
        check(changed(frame, marker, offset, value))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20, 160, 400])
def test_cut_frames_are_found(frame, n):
    with pytest.raises(ValueError, match=r"JPEG|leaves"):
        check(frame[:n])


def test_a_marker_inside_the_scan_is_found(frame):
    start = frame.index(b"\xff\xda") + 40
    with pytest.raises(ValueError, match="JPEG"):
        check(frame[:start] + b"\xff\xc8" + frame[start + 2 :])


def test_another_size_than_the_header_says_is_found(frame):
    with pytest.raises(ValueError, match="the header says"):
        check(frame, rows=40, columns=24)

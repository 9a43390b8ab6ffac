"""Encapsulated pixels whose wrapping deviates from the standard, but whose fragments are complete, are read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

END = b"\xfe\xff\xdd\xe0\0\0\0\0"
ITEM = b"\xfe\xff\x00\xe0"
MARK = b"\xe0\x7f\x10\x00OB\0\0"
LOSSY_12_BIT = 16
"""Grey values of 4096 that lossy JPEG of 12 bits may be off by."""

# run lengths have no start mark to know them by
of_the_jpeg_family = pytest.mark.parametrize("encoded", [uid.JPEGLSLossless, uid.JPEG2000Lossless], indirect=True)
SYNTAXES = [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]


@pytest.fixture
def plane() -> np.ndarray:
    """``(40, 36)`` values of 12 bits."""
    ramp = np.add.outer(np.arange(40) * 50, np.arange(36) * 50)
    return (ramp + np.random.default_rng(1).integers(0, 50, ramp.shape)).astype(np.uint16)


@pytest.fixture(params=SYNTAXES, ids=lambda s: uid.UID(s).keyword)
def encoded(request: pytest.FixtureRequest, new_slice, plane, save_dicom, tmp_path) -> Path:
    """A compressed slice, well wrapped; values from 0, so that they are those of ``plane`` less 1024."""
    one = new_slice(0, plane)
    one.compress(request.param)
    return save_dicom(one, tmp_path / "a.dcm")


def split(path: Path) -> tuple[bytes, bytes]:
    """Everything before the length of the pixel data, and its value."""
    data = path.read_bytes()
    place = data.rindex(MARK) + len(MARK)
    return data[:place], data[place + 4 :]


def no_end(value: bytes) -> bytes:
    return value[: value.rindex(END)]


def no_table(value: bytes) -> bytes:
    length = int.from_bytes(value[4:8], "little")
    return value[8 + length :]


WRAPPINGS: dict[str, Callable[[bytes], tuple[int | None, bytes]]] = {
    "no end": lambda v: (None, no_end(v)),
    "zeros for an end": lambda v: (None, no_end(v) + b"\0" * 8),
    "half an end": lambda v: (None, no_end(v) + END[:4]),
    "bytes after the end": lambda v: (None, v + b"\0" * 11),
    "garbage after the end": lambda v: (None, v + bytes(range(60))),
    "garbage for an end": lambda v: (None, no_end(v) + bytes(range(20))),
    "a length": lambda v: (len(v), v),
    "a length and no end": lambda v: (len(no_end(v)), no_end(v)),
    "a table of zeros": lambda v: (None, ITEM + b"\4\0\0\0" + b"\0" * 4 + no_table(v)),
    "a wrong table": lambda v: (None, ITEM + b"\4\0\0\0" + b"\7\0\0\0" + no_table(v)),
    "padding elements": lambda v: (None, v + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_whole_fragments_are_read_however_they_are_wrapped(encoded: Path, plane: np.ndarray, wrapping: str) -> None:
    before, value = split(encoded)
    length, changed = WRAPPINGS[wrapping](value)
    encoded.write_bytes(before + (0xFFFFFFFF if length is None else length).to_bytes(4, "little") + changed)
    (info,) = describe(encoded)
    assert info.segmentable, info.reason
    np.testing.assert_array_equal(read_volume(encoded).array[0, 0], plane.astype(int) - 1024)


@pytest.mark.parametrize("padded", [False, True])
def test_an_odd_length_with_or_without_a_pad_byte(encoded: Path, plane: np.ndarray, padded: bool) -> None:
    before, value = split(encoded)
    code = b"".join(list(generate_fragments(value))[1:])
    halves = [code[:101], code[101:]]
    items = [ITEM + b"\0\0\0\0"]
    for half in halves:
        items.append(ITEM + len(half).to_bytes(4, "little") + half + (b"\0" if padded and len(half) % 2 else b""))
    encoded.write_bytes(before + b"\xff\xff\xff\xff" + b"".join(items) + END)
    np.testing.assert_array_equal(read_volume(encoded).array[0, 0], plane.astype(int) - 1024)


@of_the_jpeg_family
def test_a_code_stream_without_any_item(encoded: Path, plane: np.ndarray) -> None:
    before, value = split(encoded)
    code = b"".join(list(generate_fragments(value))[1:])
    encoded.write_bytes(before + len(code).to_bytes(4, "little") + code)
    np.testing.assert_array_equal(read_volume(encoded).array[0, 0], plane.astype(int) - 1024)


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_fragment_that_is_cut_short_is_told(encoded: Path, share: float) -> None:
    before, value = split(encoded)
    encoded.write_bytes(before + b"\xff\xff\xff\xff" + value[: int(share * len(value))])
    with pytest.raises(ReadError, match="cut short"):
        read_volume(encoded)


@of_the_jpeg_family
@pytest.mark.parametrize("declared", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.JPEG2000])
def test_fragments_under_another_transfer_syntax(encoded: Path, plane: np.ndarray, declared: str) -> None:
    actual = dcmread(encoded).file_meta.TransferSyntaxUID
    data = encoded.read_bytes()
    old, new = (b"\x02\0\x10\0UI" + (len(u) + len(u) % 2).to_bytes(2, "little") + u.encode() + b"\0" * (len(u) % 2)
                for u in (actual, declared))  # fmt: skip
    grown = len(new) - len(old)
    group = int.from_bytes(data[140:144], "little")
    data = data[:140] + (group + grown).to_bytes(4, "little") + data[144:]
    encoded.write_bytes(data.replace(old, new))
    assert dcmread(encoded, stop_before_pixels=True).file_meta.TransferSyntaxUID == declared
    assert describe(encoded)[0].segmentable
    np.testing.assert_array_equal(read_volume(encoded).array[0, 0], plane.astype(int) - 1024)


def test_native_pixels_in_a_fragment(new_slice, plane, save_dicom, tmp_path) -> None:
    path = save_dicom(new_slice(0, plane), tmp_path / "a.dcm")
    data = path.read_bytes()
    place = data.rindex(b"\xe0\x7f\x10\x00OW\0\0") + 8
    wrapped = encapsulate([plane.tobytes()]) + END
    path.write_bytes(data[:place] + b"\xff\xff\xff\xff" + wrapped)
    np.testing.assert_array_equal(read_volume(path).array[0, 0], plane.astype(int) - 1024)


def enhanced(new_slice, planes: np.ndarray) -> Dataset:
    one = new_slice(0, planes[0], ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    one.NumberOfFrames, one.PixelData = len(planes), planes.tobytes()
    groups = []
    for i in range(len(planes)):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 2.0 * i]
        group.PlanePositionSequence = [place]
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
    shared, turn, measures = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.5]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    one.SharedFunctionalGroupsSequence = [shared]
    return one


@pytest.mark.parametrize("table", [True, False, "wrong"])
def test_frames_of_several_fragments(new_slice, plane, save_dicom, tmp_path, table) -> None:
    planes = np.stack([plane, plane[::-1], plane[:, ::-1]])
    one = enhanced(new_slice, planes)
    one.compress(uid.JPEGLSLossless)
    frames = list(generate_fragments(one.PixelData))[1:]
    one.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=bool(table))
    if table == "wrong":
        data = bytearray(one.PixelData)
        data[12:16] = b"\7\0\0\0"
        one.PixelData = bytes(data)
    one["PixelData"].is_undefined_length = True
    path = save_dicom(one, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[: -len(END)])
    assert describe(path)[0].segmentable
    np.testing.assert_array_equal(read_volume(path).array[0], planes.astype(int) - 1024)


def test_a_frame_that_is_missing_is_told_before_reading(new_slice, plane, save_dicom, tmp_path) -> None:
    one = enhanced(new_slice, np.stack([plane, plane, plane]))
    one.compress(uid.JPEGLSLossless)
    frames = list(generate_fragments(one.PixelData))[1:]
    one.PixelData = encapsulate(frames[:2])
    one["PixelData"].is_undefined_length = True
    path = save_dicom(one, tmp_path / "a.dcm")
    assert not describe(path)[0].segmentable
    with pytest.raises(ReadError):
        read_volume(path)


@pytest.mark.needs("dcmcjpeg", package="dcmtk")
@pytest.mark.parametrize("option", ["+ee", "+el", "+e1"])
def test_jpeg_of_twelve_bits(new_slice, plane, save_dicom, tmp_path, option: str) -> None:
    raw = save_dicom(new_slice(0, plane, BitsStored=12, HighBit=11), tmp_path / "raw.dcm")
    subprocess.run([str(shutil.which("dcmcjpeg")), option, str(raw), str(tmp_path / "a.dcm")], check=True)
    assert describe(tmp_path / "a.dcm")[0].segmentable
    off = read_volume(tmp_path / "a.dcm").array[0, 0].astype(int) - (plane.astype(int) - 1024)
    assert np.abs(off).max() <= (LOSSY_12_BIT if option == "+ee" else 0)


def test_info_says_no_to_what_cannot_be_decoded(encoded: Path) -> None:
    before, value = split(encoded)
    code = bytearray(b"".join(list(generate_fragments(value))[1:]))
    code[20:-8] = bytes(len(code) - 28)
    encoded.write_bytes(before + b"\xff\xff\xff\xff" + encapsulate([bytes(code)]) + END)
    (info,) = describe(encoded.parent)
    if info.segmentable:  # then it must be read: a decoder may take any bytes of its code for pixels
        assert read_volume(encoded).array.shape == (1, 1, 40, 36)
    else:
        with pytest.raises(ReadError):
            read_volume(encoded)

"""DICOM files that make far more of themselves in memory than their size explains."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io import guard
from medmaskrcnn.io.dicom.bounds import check_code_stream
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.read import read_volume
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    settings = PhantomSettings(seed=1, shape=(4, 40, 40), spacing_mm=(60.0, 9.0, 9.0), tumours=0)
    write_dicom_series(make_phantom(settings), tmp_path / "ct")
    return sorted((tmp_path / "ct").iterdir())[0]


def deflated(source: Path, target: Path, *, zeros: int = 0) -> Path:
    """The file deflated, with so many zero bytes in a private element."""
    one = dcmread(source)
    one.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    if zeros:
        one.private_block(0x0099, "TEST", create=True).add_new(1, "OB", bytes(zeros))
    one.save_as(target, enforce_file_format=True)
    return target


def test_deflated_files_are_read(slice_file: Path, tmp_path: Path):
    path = deflated(slice_file, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_volume(path).array, read_volume(slice_file).array)


def test_a_deflated_bomb_is_refused(slice_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "HARMLESS_BYTES", 1 << 20)
    monkeypatch.setattr("medmaskrcnn.io.dicom.deflated.HARMLESS_BYTES", 1 << 20)
    path = deflated(slice_file, tmp_path / "a.dcm", zeros=32 << 20)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(ReadError, match="as no scan does"):
        read_volume(path)
    reasons = [one.info.reason for one in find_scans(tmp_path) if Path(one.info.path) == path]
    assert "as no scan does" in (reasons[0] or "")  # nor does a look through a folder unpack it


def test_a_deflated_file_that_does_not_fit_into_memory_is_refused(slice_file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("medmaskrcnn.io.dicom.deflated.HARMLESS_BYTES", 1 << 20)
    monkeypatch.setattr(guard, "available_bytes", lambda: 1 << 24)
    path = deflated(slice_file, tmp_path / "a.dcm", zeros=32 << 20)
    with pytest.raises(ReadError, match="too large for this machine"):
        read_volume(path)


def test_damaged_deflated_data_is_told(slice_file: Path, tmp_path: Path):
    path = deflated(slice_file, tmp_path / "a.dcm")
    content = path.read_bytes()
    path.write_bytes(content[:400] + b"\xff" * 40 + content[440:])
    with pytest.raises(ReadError, match=r"a\.dcm"):
        read_volume(path)


def siz(rows: int, columns: int, *, tile: int = 0, components: int = 1, bits: int = 16, offset: int = 0) -> bytes:
    tile_x, tile_y = (tile, tile) if tile else (columns + offset, rows + offset)
    head = struct.pack(">HHIIIIIIIIH", 38 + 3 * components, 0, columns + offset, rows + offset, offset, offset,
                       tile_x, tile_y, 0, 0, components)  # fmt: skip
    return b"\xff\x4f\xff\x51" + head + bytes([bits - 1, 1, 1]) * components


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (siz(65535, 65535), "is \\(65535"), (siz(24, 24, components=3), "is \\(24"), (siz(24, 24, bits=100), "bits"),
        (siz(24, 24, tile=0xFFFFFFFF)[:-3], "bits"), (b"\xff\x4f\xff\x51" + bytes(10), "no image size"), (b"", "size"),
    ],
)  # fmt: skip
def test_jpeg_2000_frames_have_the_size_of_the_header(frame: bytes, why: str):
    with pytest.raises(ValueError, match=why):
        check_code_stream(frame, uid.JPEG2000Lossless, rows=24, columns=24, samples=1)


def test_jpeg_2000_tiles_are_bounded():
    check_code_stream(siz(512, 512, offset=7), uid.JPEG2000, rows=512, columns=512, samples=1)
    with pytest.raises(ValueError, match="tiles"):
        check_code_stream(siz(512, 512, tile=1), uid.JPEG2000, rows=512, columns=512, samples=1)


def test_jpeg_ls_frames_have_the_size_of_the_header():
    good = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 16, 24, 24, 1) + bytes(3)
    check_code_stream(good, uid.JPEGLSLossless, rows=24, columns=24, samples=1)
    with pytest.raises(ValueError, match="JPEG-LS"):
        check_code_stream(good, uid.JPEGLSLossless, rows=24, columns=25, samples=1)
    with pytest.raises(ValueError, match="no frame header"):
        check_code_stream(good[:8], uid.JPEGLSLossless, rows=24, columns=24, samples=1)


def test_a_small_frame_that_claims_a_huge_image_is_refused(slice_file: Path, tmp_path: Path):
    one = dcmread(slice_file)
    one.Rows = one.Columns = 40000
    one.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    one.PixelData = encapsulate([siz(40000, 40000) + bytes(1000)])
    one["PixelData"].VR = "OB"
    path = tmp_path / "a.dcm"
    one.save_as(path, enforce_file_format=True)
    with pytest.raises(ReadError, match=r"as no scan does|too large"):
        read_volume(path)


def test_compressed_slices_are_still_read(slice_file: Path, tmp_path: Path):
    wanted = read_volume(slice_file).array
    for syntax in (uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless):
        one = dcmread(slice_file)
        one.compress(syntax, generate_instance_uid=False)
        path = tmp_path / "a.dcm"
        one.save_as(path, enforce_file_format=True)
        np.testing.assert_array_equal(read_volume(path).array, wanted)


def test_inflating_stops_early(tmp_path: Path, slice_file: Path, monkeypatch):
    """What is refused is not unpacked to its end."""
    seen = []
    unpack = zlib.decompressobj

    class Counting:
        def __init__(self, *arguments: int) -> None:
            self.inner = unpack(*arguments)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def decompress(self, *arguments: object) -> bytes:
            made = self.inner.decompress(*arguments)
            seen.append(len(made))
            return made

    path = deflated(slice_file, tmp_path / "a.dcm", zeros=64 << 20)
    monkeypatch.setattr("medmaskrcnn.io.dicom.deflated.zlib.decompressobj", Counting)
    monkeypatch.setattr(guard, "HARMLESS_BYTES", 1 << 20)
    monkeypatch.setattr("medmaskrcnn.io.dicom.deflated.HARMLESS_BYTES", 1 << 20)
    with pytest.raises(ReadError):
        read_volume(path)
    assert sum(seen) < 32 << 20


def test_pixels_of_another_size_than_the_header_says_are_told(slice_file: Path, tmp_path: Path):
    """Grey by its samples, colour by its palette: what the decoder gives does not fit."""
    one = dcmread(slice_file)
    one.SamplesPerPixel, one.PhotometricInterpretation = 2, "MONOCHROME2"
    path = tmp_path / "a.dcm"
    one.save_as(path)
    with pytest.raises(ReadError):
        read_volume(path)


@pytest.mark.parametrize("syntax", [None, uid.RLELossless])
def test_frames_that_the_pixel_data_cannot_hold_are_refused_first(
    slice_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str | None
):
    one = dcmread(slice_file)
    if syntax:
        one.compress(syntax, generate_instance_uid=False)
    one.NumberOfFrames = 900_000
    path = tmp_path / "a.dcm"
    one.save_as(path, enforce_file_format=True)
    monkeypatch.setattr("medmaskrcnn.io.dicom.frames.make_frames", lambda *_: pytest.fail("made for each frame"))
    with pytest.raises(ReadError, match="cannot hold"):
        read_volume(path)

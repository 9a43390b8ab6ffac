"""Every transfer syntax a hospital uses decodes with the dependencies alone, and damage in each is told."""

from __future__ import annotations

import io

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.read import read_volume

NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
LOSSLESS = [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]
GDCM_LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]

JPEG_TOLERANCE = 8
"""Baseline JPEG is lossy; a smooth ramp of 8 bits comes back within a few grey values."""


@pytest.fixture
def plane() -> np.ndarray:
    """``(40, 36)`` 12-bit values with texture; JPEG 2000's default encoding needs 32 pixels a side."""
    ramp = np.add.outer(np.arange(40) * 50, np.arange(36) * 50)
    return (ramp + np.random.default_rng(1).integers(0, 50, ramp.shape)).astype(np.uint16)


def recode(path, syntax: str):
    """Re-encode a file with gdcm, for the syntaxes that pydicom has no encoder for."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda s: uid.UID(s).keyword)
def test_native(new_slice, plane, save_dicom, tmp_path, syntax):
    one = new_slice(0, plane)
    one.file_meta.TransferSyntaxUID = syntax
    path = save_dicom(one, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_volume(path).array[0, 0], plane.astype(int) - 1024)


def test_big_endian(new_slice, plane, tmp_path):
    one = new_slice(0, plane)
    one.PixelData = plane.astype(">u2").tobytes()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    one.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.dcm").array[0, 0], plane.astype(int) - 1024)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: uid.UID(s).keyword)
def test_lossless_by_pydicom(new_slice, plane, save_dicom, tmp_path, syntax):
    one = new_slice(0, plane, BitsStored=12, HighBit=11)
    one.compress(syntax)
    path = save_dicom(one, tmp_path / "a.dcm")
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_volume(path).array[0, 0], plane.astype(int) - 1024)


@pytest.mark.parametrize("syntax", GDCM_LOSSLESS)
def test_lossless_by_gdcm(new_slice, plane, save_dicom, tmp_path, syntax):
    path = save_dicom(new_slice(0, plane), tmp_path / "a.dcm")
    recode(path, syntax)
    assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_volume(path).array[0, 0], plane.astype(int) - 1024)


def test_signed_values_survive_lossless_jpeg(new_slice, plane, save_dicom, tmp_path):
    signed = plane.astype(np.int16) - 1500
    path = save_dicom(new_slice(0, signed, RescaleIntercept=0), tmp_path / "a.dcm")
    recode(path, "JPEGLosslessProcess14_1")
    np.testing.assert_array_equal(read_volume(path).array[0, 0], signed)


def test_jpeg_baseline(new_slice, save_dicom, tmp_path):
    ramp = np.add.outer(np.arange(32) * 3, np.arange(24) * 5).astype(np.uint8)
    path = save_dicom(new_slice(0, ramp, RescaleIntercept=0), tmp_path / "a.dcm")
    recode(path, "JPEGBaselineProcess1")
    decoded = read_volume(path).array[0, 0]
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - ramp).max() <= JPEG_TOLERANCE


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_colour_jpeg_comes_out_as_rgb(new_slice, save_dicom, tmp_path, photometric):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :16, 0], pixels[:, 16:32, 1], pixels[:, 32:, 2] = 220, 180, 250
    stream = io.BytesIO()
    keep_rgb = {"keep_rgb": True} if photometric == "RGB" else {"subsampling": "4:2:2"}
    Image.fromarray(pixels).save(stream, "JPEG", quality=97, **keep_rgb)
    one = new_slice(0, pixels, PhotometricInterpretation=photometric, RescaleIntercept=0)
    one.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    one.PixelData = encapsulate([stream.getvalue()])
    one["PixelData"].is_undefined_length = True
    volume = read_volume(save_dicom(one, tmp_path / "a.dcm"))
    assert volume.channel_kind == "colour"
    difference = np.abs(volume.array[:, 0].astype(int) - np.moveaxis(pixels, -1, 0))
    assert np.median(difference, axis=(1, 2)).max() <= JPEG_TOLERANCE  # edges blur, areas do not


@pytest.mark.parametrize("seed", range(20))
def test_damaged_lossless_jpeg_does_not_end_the_process(new_slice, plane, save_dicom, tmp_path, seed):
    path = save_dicom(new_slice(0, plane), tmp_path / "damaged.dcm")
    recode(path, "JPEGLosslessProcess14_1")
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    first = data.index(b"\xff\xd8\xff")
    for i in random.integers(first, first + 80, 2):
        data[i] = random.choice([0, 255, random.integers(256)])
    path.write_bytes(data)
    try:
        assert read_volume(path).array.size
    except ReadError as error:
        assert "damaged.dcm" in str(error)


@pytest.mark.parametrize("syntax", [None, *LOSSLESS], ids=lambda s: uid.UID(s).keyword if s else "native")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused_and_named(new_slice, plane, save_dicom, tmp_path, syntax, share):
    one = new_slice(0, plane, BitsStored=12, HighBit=11)
    if syntax:
        one.compress(syntax)
    path = save_dicom(one, tmp_path / "cut.dcm")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ReadError, match=r"cut\.dcm"):
        read_volume(path)


@pytest.mark.parametrize("seed", range(40))
def test_scrambled_bytes_never_escape_as_another_error(new_slice, plane, save_dicom, tmp_path, seed):
    random = np.random.default_rng(seed)
    one = new_slice(0, plane, BitsStored=12, HighBit=11)
    if seed % 4:
        one.compress(LOSSLESS[seed % 4 - 1])
    path = save_dicom(one, tmp_path / "scrambled.dcm")
    data = bytearray(path.read_bytes())
    where = random.integers(132, len(data), 30 if seed < 20 else 3)
    for i in where:
        data[i] = random.integers(256)
    path.write_bytes(data)
    try:
        assert read_volume(path).array.size  # a flipped pixel is no error
    except ReadError as error:
        assert "scrambled.dcm" in str(error)

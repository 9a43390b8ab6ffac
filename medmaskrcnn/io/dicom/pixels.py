"""Reads the stored pixels of DICOM files, with a fixed decoder for each transfer syntax.

Decoders: pydicom for uncompressed data, RLE and JPEG-LS through pylibjpeg-rle and pyjpegls, JPEG 2000 through
pylibjpeg-openjpeg, JPEG and JPEG lossless through python-gdcm. The decoder is fixed so that the same file gives the
same voxels whatever else is installed; gdcm is used here only where there is no alternative, because damaged data makes
it crash the process. Where the decoder fails and another one knows the transfer syntax, that one is tried in a process
of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, iter_pixels, pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.bounds import JPEG_2000_SYNTAXES, JPEG_LS_SYNTAXES, check_code_stream, check_file
from medmaskrcnn.io.dicom.decode_pool import decoded_by_other, decoded_elsewhere
from medmaskrcnn.io.dicom.fragments import find_fragments, is_encapsulated, read_encoded_frames, syntax_of
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.gdcm_decoder import PLUGIN as GDCM_12_BIT
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.dicom.jpeg_check import JPEG_SYNTAXES, check_jpeg
from medmaskrcnn.io.dicom.mosaic import cut_mosaic
from medmaskrcnn.io.guard import convert_read_errors

PLUGINS = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    **dict.fromkeys(JPEG_SYNTAXES, "gdcm"),
    JPEGExtended12Bit: GDCM_12_BIT,
}
"""pydicom's name of the decoder for each compressed transfer syntax."""

OTHER_PLUGINS = {
    RLELossless: "pydicom",
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000), "gdcm"),
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "gdcm",
}
"""The decoder that is tried when the first one fails."""

_PIXEL_DATA = b"\xe0\x7f\x10\x00"


def read_stored(frames: Sequence[Frame]) -> NDArray[Any]:
    """Stored pixels of frames, ``(N, H, W)`` or in colour ``(N, 3, H, W)``, in one type that holds all values.

    Raises:
        ReadError: if a file is damaged or cut short.
    """
    native = {f.header.native_dtype for f in frames}
    if len(native) == 1 and (dtype := native.pop()) is not None:
        return _read_native(frames, np.dtype(dtype))
    array: NDArray[Any] | None = None
    for i, pixels in enumerate(_decoded(frames)):
        if array is None:
            array = np.empty((len(frames), *pixels.shape), pixels.dtype)
        wanted = np.result_type(array.dtype, pixels.dtype)
        if wanted != array.dtype:
            array = array.astype(wanted)
        array[i] = pixels
    if array is None:
        raise ReadError("there is no slice to read")
    return array


def _read_native(frames: Sequence[Frame], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read uncompressed slices directly from the files into the array."""
    first = frames[0].header
    array = np.empty((len(frames), first.rows, first.columns), dtype)
    for plane, frame in zip(array, frames, strict=True):
        header = frame.header
        assert header.pixel_data_offset is not None, "a header with a native type has it"
        with convert_read_errors(header.path, "DICOM"), header.path.open("rb", buffering=0) as stream:
            stream.seek(header.pixel_data_offset + frame.index * plane.nbytes)
            if stream.readinto(plane.view(np.uint8)) != plane.nbytes:
                raise ReadError(f"{header.path} is cut short: it ends before its pixel data does. Copy it again")
        _clear_unused_bits(plane, header.bits_stored)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _clear_unused_bits(plane: NDArray[Any], bits_stored: int) -> None:
    """Clear bits beyond Bits Stored (0028,0101), which may hold overlays or lack the sign (PS3.5, 8.1.1)."""
    unused = 8 * plane.dtype.itemsize - bits_stored
    if unused:
        plane <<= unused
        plane >>= unused


def _decoded(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    """Pixels of each frame, ``(H, W)`` or ``(3, H, W)``; consecutive frames of a file are decoded once."""
    headers = list(dict.fromkeys(f.header for f in frames))
    if len(headers) == len(frames) and (elsewhere := decoded_elsewhere(headers)) is not None:
        yield from elsewhere
        return
    for header, run in groupby(frames, key=lambda f: f.header):
        pixels = decode_file(header)
        for frame in run:
            yield pixels[frame.index]


def decode_file(header: DicomHeader, *, index: int | None = None, other_plugin: bool = False) -> NDArray[Any]:
    """Frames of one file: ``(frames, H, W)``, or ``(frames, 3, H, W)`` in colour.

    Args:
        header: Its header.
        index: Only this frame; all of them by default.
        other_plugin: Use the second decoder of the transfer syntax, :data:`OTHER_PLUGINS`.

    Raises:
        ReadError: if no decoder can read it.
    """
    with convert_read_errors(header.path, "DICOM"):
        check_file(header)
        dataset = read_dataset(header.path)
        syntax = dataset.file_meta.TransferSyntaxUID
        if other_plugin:
            return _decode(dataset, header, index, OTHER_PLUGINS[syntax])
        try:
            check_frames(dataset)
            return _decode(dataset, header, index, PLUGINS.get(syntax, ""))
        except Exception:
            decoded = decoded_by_other(header, index) if syntax in OTHER_PLUGINS else None
            if decoded is None:
                raise
            return decoded


def _decode(dataset: FileDataset, header: DicomHeader, index: int | None, plugin: str) -> NDArray[Any]:
    if header.mosaic_side:
        slices = cut_mosaic(pixel_array(dataset, decoding_plugin=plugin), header)
        return np.asarray(slices if index is None else slices[index : index + 1])
    pixels = pixel_array(dataset, index=index, decoding_plugin=plugin)
    if header.photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if "ModalityLUTSequence" in dataset:
        pixels = apply_modality_lut(pixels, dataset)
    pixels = pixels.reshape(header.n_frames if index is None else 1, header.rows, header.columns, -1)
    if pixels.shape[-1] == 1:
        return np.asarray(pixels[..., 0])
    return np.asarray(np.moveaxis(pixels[..., :3], -1, 1))


def read_dataset(path: Path) -> FileDataset:
    """A DICOM file with its pixel data in the form that pydicom decodes, however a writer wrapped it.

    Encapsulated frames are read by :mod:`~medmaskrcnn.io.dicom.fragments` and wrapped anew, one item for each; the
    transfer syntax is that of their code streams.

    Raises:
        Exception: whatever pydicom raises on damaged data; call inside
            :func:`~medmaskrcnn.io.guard.convert_read_errors`.
    """
    with path.open("rb") as stream:
        dataset = dcmread(stream, stop_before_pixels=True, force=True)
        complete_syntax(dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        place = stream.tell()
        explicit = syntax != ImplicitVRLittleEndian
        head = _read_at(stream, place, 12 if explicit else 8)
        if syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian) or head[:4] != _PIXEL_DATA:
            dataset = dcmread(path, force=True)
            complete_syntax(dataset)
            return dataset
        length = int.from_bytes(head[-4:], "little")
        n_frames = int(dataset.get("NumberOfFrames") or 1)
        if is_encapsulated(stream, place + len(head), length, syntax, _native_bytes(dataset)):
            frames = read_encoded_frames(stream, find_fragments(stream, place + len(head), length), n_frames)
            _wrap(dataset, frames)
        else:
            _put(dataset, _read_at(stream, place + len(head), length))
            if syntax.is_compressed:
                dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _wrap(dataset: FileDataset, frames: list[bytes]) -> None:
    """Put encoded frames into a dataset, with the transfer syntax that they are encoded in."""
    declared = dataset.file_meta.TransferSyntaxUID
    found = syntax_of(frames[0], declared)
    if found is None and not declared.is_compressed:
        _put(dataset, b"".join(frames))  # native pixels in fragments
        return
    dataset.file_meta.TransferSyntaxUID = declared if found is None else found
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _put(dataset: FileDataset, pixels: bytes) -> None:
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OW" if int(dataset.get("BitsAllocated") or 8) > 8 else "OB"


def _native_bytes(dataset: FileDataset) -> int:
    """Length of the pixel data if it is not compressed."""
    names = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
    return math.prod(int(dataset.get(name) or 1) for name in names) // 8


def _read_at(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    return stream.read(size)


def stored_frames(dataset: FileDataset) -> Iterator[NDArray[Any]]:
    """Each frame as stored, one at a time: ``(H, W)``, or ``(H, W, samples)`` in colour (as RGB).

    Frames with one bit per pixel are returned as 0 and 1.

    Args:
        dataset: As :func:`read_dataset` gives it.

    Raises:
        Exception: whatever a decoder raises on damaged data; call inside
            :func:`~medmaskrcnn.io.guard.convert_read_errors`.
    """
    check_frames(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if dataset.get("BitsAllocated") == 1 and not syntax.is_compressed:
        yield from _bit_frames(dataset)
    else:
        yield from iter_pixels(dataset, decoding_plugin=PLUGINS.get(syntax, ""))


def _bit_frames(dataset: FileDataset) -> Iterator[NDArray[Any]]:
    """Frames with one bit per pixel, packed without a gap between frames (PS3.5 8.2).

    pydicom 3.0 cannot extract single frames with an odd number of pixels from them.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    for index in range(int(dataset.get("NumberOfFrames") or 1)):
        start, stop = index * rows * columns, (index + 1) * rows * columns
        if stop > 8 * len(packed):
            raise ValueError(f"the pixel data ends before frame {index + 1} does")
        bits = np.unpackbits(packed[start // 8 : (stop + 7) // 8], bitorder="little")
        yield bits[start % 8 : start % 8 + rows * columns].reshape(rows, columns)


def complete_syntax(dataset: FileDataset) -> None:
    """Add the transfer syntax to files without a meta header, from the encoding with which pydicom parsed them."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed


def check_frames(dataset: FileDataset) -> None:
    """Check JPEG frames before gdcm decodes them, and the size of JPEG 2000 and JPEG-LS frames.

    Raises:
        ValueError: if a frame is damaged.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in JPEG_SYNTAXES or syntax in JPEG_2000_SYNTAXES or syntax in JPEG_LS_SYNTAXES:
        n_frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
        for frame in generate_frames(dataset.PixelData, number_of_frames=n_frames):
            if syntax in JPEG_SYNTAXES:
                check_jpeg(frame, rows=dataset.Rows, columns=dataset.Columns, samples=samples)
            check_code_stream(frame, syntax, rows=dataset.Rows, columns=dataset.Columns, samples=samples)

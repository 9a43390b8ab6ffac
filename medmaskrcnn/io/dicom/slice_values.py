"""Slices from files into one array, and from stored numbers to real-world values, in as little memory as that takes.

A scan is read into one array of its stored type. Where the real-world values have a type of the same size they are
computed in place; otherwise one slice at a time into a second array. No more than these two exist at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.decode_pool import decoded_elsewhere
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.dicom.pixels import PLUGINS, check_frames, complete_syntax
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.values import float_type, is_whole, rescale, smallest_integer_type


def read_values(frames: Sequence[Frame]) -> NDArray[Any]:
    """The real-world values of frames.

    Args:
        frames: In reading order; each has the scaling of its own stored values.

    Returns:
        ``(N, H, W)``, or ``(N, 3, H, W)`` in colour: of the stored type where nothing is scaled, of the smallest
        integer type where whole numbers scale integers, else float32 (float64 where the stored values need it).

    Raises:
        ReadError: if a file is damaged or cut short.
    """
    return _scaled(_stored(frames), frames)


def _scaled(stored: NDArray[Any], frames: Sequence[Frame]) -> NDArray[Any]:
    """Apply each frame's slope and intercept to ``(N, ...)`` stored values, which may be overwritten."""
    if all(f.slope == 1 and f.intercept == 0 for f in frames):
        return stored
    if stored.dtype.kind not in "iu" or not all(is_whole(f.slope) and is_whole(f.intercept) for f in frames):
        target = float_type(stored.dtype)
    else:
        ends = [
            int(v) * int(f.slope) + int(f.intercept)
            for plane, f in zip(stored, frames, strict=True)
            for v in (plane.min(), plane.max())
        ]
        target = smallest_integer_type(min(ends), max(ends))
    both_whole = target.kind in "iu" and stored.dtype.kind in "iu"
    if target == stored.dtype or (both_whole and target.itemsize == stored.dtype.itemsize):
        return _scaled_in_place(stored, frames, target)
    values = np.empty(stored.shape, target)
    for i, frame in enumerate(frames):
        values[i] = rescale(stored[i], frame.slope, frame.intercept)
    return values


def _scaled_in_place(stored: NDArray[Any], frames: Sequence[Frame], target: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers within one size: sums and products that wrap around are exact if the results fit."""
    if target.kind == "f":
        for plane, frame in zip(stored, frames, strict=True):
            plane[...] = rescale(plane, frame.slope, frame.intercept)
        return stored
    unsigned = stored.view(f"u{target.itemsize}")
    modulus = 1 << (8 * target.itemsize)
    for plane, frame in zip(unsigned, frames, strict=True):
        if frame.slope != 1:
            plane *= plane.dtype.type(int(frame.slope) % modulus)
        plane += plane.dtype.type(int(frame.intercept) % modulus)
    return stored.view(target)


def _stored(frames: Sequence[Frame]) -> NDArray[Any]:
    """Stored pixels ``(N, H, W)`` or ``(N, 3, H, W)``, of one type that holds all."""
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
    """Uncompressed slices straight from the files into their place in the array."""
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
    """Bits beyond Bits Stored (0028,0101) may hold overlays or lack the sign: they do not count (PS3.5, 8.1.1)."""
    unused = 8 * plane.dtype.itemsize - bits_stored
    if unused:
        plane <<= unused
        plane >>= unused


def _decoded(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    """Pixels of each frame, ``(H, W)`` or ``(3, H, W)``; a multi-frame file is decoded once, if in one run."""
    headers = list(dict.fromkeys(f.header for f in frames))
    if len(headers) == len(frames) and (elsewhere := decoded_elsewhere(headers)) is not None:
        yield from elsewhere
        return
    for header, run in groupby(frames, key=lambda f: f.header):
        pixels = decode_file(header)
        for frame in run:
            yield pixels[frame.index]


def decode_file(header: DicomHeader) -> NDArray[Any]:
    """All frames of one file: ``(frames, H, W)``, or ``(frames, 3, H, W)`` in colour."""
    with convert_read_errors(header.path, "DICOM"):
        dataset = dcmread(header.path, force=True)
        complete_syntax(dataset)
        check_frames(dataset)
        dataset.pixel_array_options(decoding_plugin=PLUGINS.get(dataset.file_meta.TransferSyntaxUID, ""))
        pixels = dataset.pixel_array
        if header.photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
        if "ModalityLUTSequence" in dataset:
            pixels = apply_modality_lut(pixels, dataset)
        pixels = pixels.reshape(header.n_frames, header.rows, header.columns, -1)
        if pixels.shape[-1] == 1:
            return np.asarray(pixels[..., 0])
        return np.asarray(np.moveaxis(pixels[..., :3], -1, 1))

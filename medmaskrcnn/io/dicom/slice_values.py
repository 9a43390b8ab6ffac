"""Slices from files into one array, and from stored numbers to real-world values, in as little memory as that takes.

A scan is read into one array of its stored type. Where the real-world values have a type of the same size they are
computed in place; otherwise one slice at a time into a second array. No more than these two exist at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.arrange import Slice
from medmaskrcnn.io.dicom.decode_pool import decoded_elsewhere
from medmaskrcnn.io.dicom.header import DicomFile, StoredPixels
from medmaskrcnn.io.dicom.pixels import PLUGINS, check_frames, complete_syntax
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.values import float_type, is_whole, rescale, smallest_integer_type


@dataclass(frozen=True)
class Scaling:
    """Stored value times slope plus intercept is the real-world value."""

    slope: float
    intercept: float

    @property
    def is_identity(self) -> bool:
        """True for 1 and 0."""
        return self.slope == 1 and self.intercept == 0

    @property
    def is_whole(self) -> bool:
        """True if integers stay integers."""
        return is_whole(self.slope) and is_whole(self.intercept)


def read_values(slices: Sequence[Slice], scalings: Sequence[Scaling]) -> NDArray[Any]:
    """The real-world values of slices.

    Args:
        slices: In reading order.
        scalings: One a slice.

    Returns:
        ``(N, H, W)``, or ``(N, 3, H, W)`` in colour: of the stored type where nothing is scaled, of the smallest
        integer type where whole numbers scale integers, else float32 (float64 where the stored values need it).

    Raises:
        ReadError: if a file is damaged or cut short.
    """
    return scale(_stored(slices), scalings)


def scale(stored: NDArray[Any], scalings: Sequence[Scaling]) -> NDArray[Any]:
    """Apply one scaling a slice to ``(N, ...)`` stored values, which may be overwritten."""
    if all(s.is_identity for s in scalings):
        return stored
    if stored.dtype.kind not in "iu" or not all(s.is_whole for s in scalings):
        target = float_type(stored.dtype)
    else:
        ends = [
            int(v) * int(s.slope) + int(s.intercept)
            for plane, s in zip(stored, scalings, strict=True)
            for v in (plane.min(), plane.max())
        ]
        target = smallest_integer_type(min(ends), max(ends))
    both_whole = target.kind in "iu" and stored.dtype.kind in "iu"
    if target == stored.dtype or (both_whole and target.itemsize == stored.dtype.itemsize):
        return _scaled_in_place(stored, scalings, target)
    values = np.empty(stored.shape, target)
    for i, one in enumerate(scalings):
        values[i] = rescale(stored[i], one.slope, one.intercept)
    return values


def _scaled_in_place(stored: NDArray[Any], scalings: Sequence[Scaling], target: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers within one size: sums and products that wrap around are exact if the results fit."""
    if target.kind == "f":
        for plane, one in zip(stored, scalings, strict=True):
            plane[...] = rescale(plane, one.slope, one.intercept)
        return stored
    unsigned = stored.view(f"u{target.itemsize}")
    modulus = 1 << (8 * target.itemsize)
    for plane, one in zip(unsigned, scalings, strict=True):
        if one.slope != 1:
            plane *= plane.dtype.type(int(one.slope) % modulus)
        plane += plane.dtype.type(int(one.intercept) % modulus)
    return stored.view(target)


def _stored(slices: Sequence[Slice]) -> NDArray[Any]:
    """Stored pixels ``(N, H, W)`` or ``(N, 3, H, W)``, of one type that holds all."""
    plain = {s.file.stored.dtype for s in slices if s.file.stored is not None}
    if len(plain) == 1 and all(s.file.stored is not None for s in slices):
        return _read_plain(slices, np.dtype(plain.pop()))
    array: NDArray[Any] | None = None
    for i, pixels in enumerate(_decoded(slices)):
        if array is None:
            array = np.empty((len(slices), *pixels.shape), pixels.dtype)
        wanted = np.result_type(array.dtype, pixels.dtype)
        if wanted != array.dtype:
            array = array.astype(wanted)
        array[i] = pixels
    if array is None:
        raise ReadError("there is no slice to read")
    return array


def _read_plain(slices: Sequence[Slice], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uncompressed slices straight from the files into their place in the array."""
    first = slices[0].file
    array = np.empty((len(slices), first.rows, first.columns), dtype)
    for plane, one in zip(array, slices, strict=True):
        place = one.file.stored
        assert place is not None, "the caller has looked"
        with convert_read_errors(one.file.path, "DICOM"), one.file.path.open("rb", buffering=0) as stream:
            stream.seek(place.start + one.frame.index * place.frame_bytes)
            if stream.readinto(plane.view(np.uint8)) != place.frame_bytes:
                raise ReadError(f"{one.file.path} is cut short: it ends before its pixel data does. Copy it again")
        _clean(plane, place)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _clean(plane: NDArray[Any], place: StoredPixels) -> None:
    """Bits beyond Bits Stored (0028,0101) may hold overlays or lack the sign: they do not count (PS3.5, 8.1.1)."""
    unused = 8 * plane.dtype.itemsize - place.bits
    if unused:
        plane <<= unused
        plane >>= unused


def _decoded(slices: Sequence[Slice]) -> Iterator[NDArray[Any]]:
    """Pixels of each slice, ``(H, W)`` or ``(3, H, W)``; a multi-frame file is decoded once, if in one run."""
    files = list(dict.fromkeys(s.file for s in slices))
    if len(files) == len(slices) and (elsewhere := decoded_elsewhere(files)) is not None:
        yield from elsewhere
        return
    for _, run in groupby(slices, key=lambda s: s.file.path):
        frames = list(run)
        pixels = decode_file(frames[0].file)
        for one in frames:
            yield pixels[one.frame.index]


def decode_file(file: DicomFile) -> NDArray[Any]:
    """All frames of one file: ``(frames, H, W)``, or ``(frames, 3, H, W)`` in colour."""
    with convert_read_errors(file.path, "DICOM"):
        dataset = dcmread(file.path, force=True)
        complete_syntax(dataset)
        check_frames(dataset)
        dataset.pixel_array_options(decoding_plugin=PLUGINS.get(dataset.file_meta.TransferSyntaxUID, ""))
        pixels = dataset.pixel_array
        if file.photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
        if "ModalityLUTSequence" in dataset:
            pixels = apply_modality_lut(pixels, dataset)
        pixels = pixels.reshape(len(file.frames), file.rows, file.columns, -1)
        if pixels.shape[-1] == 1:
            return np.asarray(pixels[..., 0])
        return np.asarray(np.moveaxis(pixels[..., :3], -1, 1))

"""Decoding the slices of an arranged DICOM scan into a Volume."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom_arrange import Arrangement, Slice
from medmaskrcnn.io.dicom_header import DicomFile
from medmaskrcnn.io.dicom_pixels import PLUGINS, check_frames, complete_syntax
from medmaskrcnn.io.dicom_series import DicomScan
from medmaskrcnn.io.guard import reading
from medmaskrcnn.io.values import float_type, is_whole, rescale, smallest_integer_type
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume


def read_dicom(scan: DicomScan) -> Volume:
    """Decode a scan: real-world values, slices sorted along the normal.

    Each slice's own rescale slope and intercept are applied. Integers stay integers where all of them are whole
    numbers; PET with its fractional slopes becomes float32. MONOCHROME1 is told, not inverted.

    Raises:
        ReadError: if the scan has no regular grid, or a file is damaged or cut short.
    """
    if scan.problem is not None or scan.arrangement is None:
        raise ReadError(f"{scan.folder}: {scan.problem}")
    arrangement = scan.arrangement
    slices = [s for channel in arrangement.channels for s in channel]
    with reading(scan.folder, "DICOM"):
        array = _join([_Stored(s, p) for s, p in zip(slices, _decoded(slices), strict=True)], arrangement)
    first = scan.first
    return Volume(
        array=array,
        grid=arrangement.grid,
        modality=first.modality or None,
        channel_kind=arrangement.channel_kind,
        window=slices[len(slices) // 2].frame.window,
        provenance=_provenance(scan, arrangement, slices),
    )


class _Stored:
    """One slice's stored numbers, released as soon as they are rescaled: a scan is in memory at most twice."""

    def __init__(self, one: Slice, pixels: NDArray[Any]) -> None:
        self.slope, self.intercept = one.frame.slope, one.frame.intercept
        self.pixels: NDArray[Any] | None = pixels
        self.dtype = pixels.dtype
        self.low, self.high = pixels.min(), pixels.max()

    @property
    def is_exact(self) -> bool:
        return self.dtype.kind in "iu" and is_whole(self.slope) and is_whole(self.intercept)

    def range(self) -> list[int]:
        return [int(v) * int(self.slope) + int(self.intercept) for v in (self.low, self.high)]

    def take(self) -> NDArray[Any]:
        pixels, self.pixels = self.pixels, None
        assert pixels is not None, "each slice is taken once"
        return rescale(pixels, self.slope, self.intercept)


def _join(stored: list[_Stored], arrangement: Arrangement) -> NDArray[Any]:
    """All slices as one ``(C, D, H, W)`` array of the smallest type that is exact for all."""
    identity = all(s.slope == 1 and s.intercept == 0 for s in stored)
    if identity:
        dtype = np.result_type(*{s.dtype for s in stored})
    elif all(s.is_exact for s in stored):
        ends = [v for s in stored for v in s.range()]
        dtype = smallest_integer_type(min(ends), max(ends))
    else:
        dtype = np.result_type(*{float_type(s.dtype) for s in stored})
    array = np.empty(arrangement.shape, dtype=dtype)
    depth = arrangement.grid.shape[0]
    for i, one in enumerate(stored):
        channel = slice(None) if arrangement.channel_kind == "colour" else i // depth
        array[channel, i % depth] = one.take()
    return array


def _decoded(slices: Iterable[Slice]) -> Iterable[NDArray[Any]]:
    """Stored pixels of each slice, ``(H, W)`` or ``(3, H, W)``; a multi-frame file is decoded once, if in one run."""
    for _, run in groupby(slices, key=lambda s: s.file.path):
        frames = list(run)
        file = frames[0].file
        pixels = _decode(file)
        for one in frames:
            yield pixels[one.frame.index]


def _decode(file: DicomFile) -> NDArray[Any]:
    """All frames of one file: ``(frames, H, W)``, or ``(frames, 3, H, W)`` in colour."""
    with reading(file.path, "DICOM"):
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


def _provenance(scan: DicomScan, arrangement: Arrangement, slices: list[Slice]) -> Provenance:
    first = scan.first
    notes = [*scan.notes, *arrangement.notes]
    if first.photometric == "MONOCHROME1":
        notes.append("Stored so that low values are bright (MONOCHROME1); the values are read as they are.")
    manufacturers = {s.file.manufacturer for s in slices}
    return Provenance(
        format="DICOM",
        files=tuple(dict.fromkeys(str(s.file.path) for s in slices)),
        study_uid=first.study_uid or None,
        series_uid=first.series_uid or None,
        frame_of_reference_uid=first.frame_of_reference_uid or None,
        sop_instance_uids=tuple(dict.fromkeys(s.file.sop_instance_uid for s in slices if s.file.sop_instance_uid)),
        generator=PHANTOM_GENERATOR if manufacturers == {PHANTOM_GENERATOR} else None,
        notes=tuple(notes),
    )

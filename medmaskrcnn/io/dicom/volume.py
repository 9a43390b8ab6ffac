"""Decoding the frames of a DICOM stack into a Volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.bounds import check_stack
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import TILT_TOLERANCE_DEG, tilt_deg
from medmaskrcnn.io.dicom.identity import repeated_images, without_repeats
from medmaskrcnn.io.dicom.irregular import arrange_resampled, interpolate
from medmaskrcnn.io.dicom.pet_suv import suv_factor
from medmaskrcnn.io.dicom.pixels import read_stored
from medmaskrcnn.io.dicom.stack import DicomStack, arrange
from medmaskrcnn.io.dicom.tiles import join_tiles
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.options import AS_STORED, ReadingOptions
from medmaskrcnn.io.values import rescale_slices
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Film, Provenance, ReadingPolicy, Volume

_SUV_NOTE = "The values are standardised uptake values by body weight (g/mL), as asked."


def read_dicom(stack: DicomStack, options: ReadingOptions = AS_STORED) -> Volume:
    """Decode a volume: real-world values, slices sorted along the normal.

    Each slice's own rescale slope and intercept are applied. Integers stay integers if all of these are whole
    numbers; PET with its fractional slopes becomes float32. MONOCHROME1 is noted, not inverted.

    Raises:
        ReadError: if the stack has no regular grid (unless ``options`` accepts that), a file is damaged or cut short,
            or SUV is requested and the header lacks the attributes needed.
    """
    stack = _readable(stack, options)
    assert stack.grid is not None and stack.shape is not None, "only what has a grid is readable"
    frames = stack.ordered_frames
    suv = options.suv and stack.header.modality == "PT"
    if suv:
        factor = suv_factor(stack.paths)
        frames = [replace(f, slope=f.slope * factor, intercept=f.intercept * factor) for f in frames]
    with convert_read_errors(stack.folder, "DICOM"):
        check_stack(stack.folder, frames)
        values = rescale_slices(read_stored(frames), [(f.slope, f.intercept) for f in frames])
        if stack.lower is not None and stack.weight is not None:
            values = interpolate(values, stack.lower, stack.weight)
        if stack.header.matrix is not None:
            # sparse tiles leave glass bare, which is white in colour
            white = 255 if stack.channel_kind == "colour" else 0
            values = join_tiles(values, frames, stack.header.matrix, white)
        array = _channels_first(stack, values)
    return Volume(
        array=array,
        grid=stack.grid,
        modality=stack.header.modality or None,
        channel_kind=stack.channel_kind,
        window=None if suv else frames[len(frames) // 2].window,
        film=_film(stack),
        provenance=_provenance(stack, stack.grid, frames, suv=suv),
    )


def _channels_first(stack: DicomStack, values: NDArray[Any]) -> NDArray[Any]:
    """``(N, H, W)`` or ``(N, 3, H, W)`` to ``(C, D, H, W)``.

    Raises:
        ReadError: if the pixels are of another size or colour than the header says.
    """
    if stack.channel_kind == "colour" and values.ndim == 4:
        values = np.ascontiguousarray(values.swapaxes(0, 1))
    if stack.shape is None or values.size != math.prod(stack.shape):
        raise ReadError(
            f"{stack.folder}: the pixels are of shape {values.shape}, the header says {stack.shape}; it is damaged"
        )
    return values.reshape(stack.shape)


def _film(stack: DicomStack) -> Film | None:
    """The size of a pixel in a film, whose grid cannot hold it."""
    scale = stack.frames[0].scale
    if stack.grid is None or stack.grid.shape[0] == 1 or scale is None or scale.pixel_mm is None:
        return None
    return Film(scale.pixel_mm)


def _readable(stack: DicomStack, options: ReadingOptions) -> DicomStack:
    """The stack, resampled if requested and needed; raises an error with the reason if it cannot be read."""
    if options.drop_duplicates and stack.remedy is Remedy.DROP_DUPLICATES:
        return _without_duplicates(stack)
    if options.resample_irregular and stack.can_be_resampled:
        try:
            return arrange_resampled(stack)
        except ReadError as error:
            raise ReadError(f"{stack.folder}: {error.reason}", error.remedy) from error
    if stack.problem is not None:
        remedy = stack.remedy or (Remedy.RESAMPLE_IRREGULAR if stack.can_be_resampled else None)
        raise ReadError(f"{stack.folder}: {stack.problem}", remedy)
    return stack


def _without_duplicates(stack: DicomStack) -> DicomStack:
    """The stack with each image once; the error that remains if that is not even either."""
    try:
        return arrange(without_repeats(stack, repeated_images(stack)))
    except ReadError as error:
        raise ReadError(f"{stack.folder}: {error.reason}", error.remedy) from error


def _provenance(stack: DicomStack, grid: Grid, frames: Sequence[Frame], *, suv: bool) -> Provenance:
    first = stack.header
    notes = [*stack.notes, *([_SUV_NOTE] if suv else [])]
    inverted = first.photometric == "MONOCHROME1"
    if inverted:
        notes.append("Stored so that low values are bright (MONOCHROME1); the values are read as they are.")
    manufacturers = {f.header.manufacturer for f in frames}
    tilt = tilt_deg(grid.affine_vox_to_ras)
    rescaled = any(f.slope != 1 or f.intercept != 0 for f in frames)
    policy = ReadingPolicy(
        order="by position" if stack.step_from == "positions" else "as stored",
        step_from=stack.step_from,
        values="SUV body weight" if suv else "rescaled" if rescaled else "stored",
        tilt_deg=round(tilt, 3) if tilt > TILT_TOLERANCE_DEG else 0.0,
        resampled=stack.lower is not None,
        separated_by=stack.separated_by,
        slices_left_out=stack.n_left_out + len(stack.frames) - len(frames),
        low_is_bright=inverted,
    )
    return Provenance(
        format="DICOM",
        files=tuple(dict.fromkeys(str(f.header.path) for f in frames)),
        study_uid=first.study_uid or None,
        series_uid=first.series_uid or None,
        frame_of_reference_uid=first.frame_of_reference_uid or None,
        sop_instance_uids=tuple(dict.fromkeys(f.header.sop_instance_uid for f in frames if f.header.sop_instance_uid)),
        generator=PHANTOM_GENERATOR if manufacturers == {PHANTOM_GENERATOR} else None,
        notes=tuple(notes),
        policy=policy,
    )

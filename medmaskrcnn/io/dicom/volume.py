"""Decoding the slices of an arranged DICOM scan into a Volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.arrange import Arrangement, arrange
from medmaskrcnn.io.dicom.geometry import TILT_TOLERANCE_DEG, tilt_deg
from medmaskrcnn.io.dicom.irregular import IrregularStack
from medmaskrcnn.io.dicom.pet_suv import suv_factor
from medmaskrcnn.io.dicom.series import DicomScan
from medmaskrcnn.io.dicom.slice_values import Scaling, read_values
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.options import AS_STORED, ReadingOptions
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, ReadingPolicy, Volume

_SUV_NOTE = "The values are standardised uptake values by body weight (g/ml), as asked."


def read_dicom(scan: DicomScan, options: ReadingOptions = AS_STORED) -> Volume:
    """Decode a scan: real-world values, slices sorted along the normal.

    Each slice's own rescale slope and intercept are applied. Integers stay integers where all of them are whole
    numbers; PET with its fractional slopes becomes float32. MONOCHROME1 is told, not inverted.

    Raises:
        ReadError: if the scan has no regular grid (unless ``options`` accepts that), a file is damaged or cut short,
            or SUV is asked for and its header lacks what that takes.
    """
    arrangement = _arrangement(scan, options)
    slices = arrangement.slices
    suv = options.suv and scan.first.modality == "PT"
    factor = suv_factor(scan.paths) if suv else 1.0
    with convert_read_errors(scan.folder, "DICOM"):
        scalings = [Scaling(s.frame.slope * factor, s.frame.intercept * factor) for s in slices]
        values = read_values(slices, scalings)
        if arrangement.resampling is not None:
            values = interpolated(values, arrangement.resampling)
    return Volume(
        array=_channels_first(values, arrangement),
        grid=arrangement.grid,
        modality=scan.first.modality or None,
        channel_kind=arrangement.channel_kind,
        window=None if suv else slices[len(slices) // 2].frame.window,
        provenance=_provenance(scan, arrangement, suv=suv, rescaled=not all(s.is_identity for s in scalings)),
    )


def _arrangement(scan: DicomScan, options: ReadingOptions) -> Arrangement:
    if options.resample_irregular and scan.can_be_resampled:
        try:
            return arrange(scan.slices, resample_irregular=True)
        except ReadError as error:
            raise ReadError(f"{scan.folder}: {error.reason}", error.remedy) from error
    if scan.problem is not None or scan.arrangement is None:
        remedy = Remedy.RESAMPLE_IRREGULAR if scan.can_be_resampled else None
        raise ReadError(f"{scan.folder}: {scan.problem}", remedy)
    return scan.arrangement


def interpolated(values: NDArray[Any], stack: IrregularStack) -> NDArray[Any]:
    """``(N, ...)`` slices to the even ones of an irregular stack; integers are rounded and keep their type."""
    result = np.empty((len(stack.below), *values.shape[1:]), values.dtype)
    for i, (below, weight) in enumerate(zip(stack.below, stack.weight, strict=True)):
        if weight == 0:
            result[i] = values[below]
        elif weight == 1:
            result[i] = values[below + 1]
        else:
            mixed = (1 - weight) * values[below] + weight * values[below + 1]
            result[i] = np.rint(mixed) if values.dtype.kind in "iu" else mixed
    return result


def _channels_first(values: NDArray[Any], arrangement: Arrangement) -> NDArray[Any]:
    """``(N, H, W)`` or ``(N, 3, H, W)`` to ``(C, D, H, W)``."""
    if arrangement.channel_kind == "colour":
        return np.ascontiguousarray(values.swapaxes(0, 1))
    return values.reshape(arrangement.shape)


def _provenance(scan: DicomScan, arrangement: Arrangement, *, suv: bool, rescaled: bool) -> Provenance:
    first, slices = scan.first, arrangement.slices
    notes = [*scan.notes, *arrangement.notes, *([_SUV_NOTE] if suv else [])]
    inverted = first.photometric == "MONOCHROME1"
    if inverted:
        notes.append("Stored so that low values are bright (MONOCHROME1); the values are read as they are.")
    manufacturers = {s.file.manufacturer for s in slices}
    tilt = tilt_deg(arrangement.grid.affine_vox_to_ras)
    policy = ReadingPolicy(
        order="by position" if arrangement.step_from == "positions" else "as stored",
        step_from=arrangement.step_from,
        values="SUV body weight" if suv else "rescaled" if rescaled else "stored",
        tilt_deg=round(tilt, 3) if tilt > TILT_TOLERANCE_DEG else 0.0,
        resampled=arrangement.resampling is not None,
        separated_by=scan.part,
        slices_left_out=scan.left_out + len(scan.slices) - len(slices),
        low_is_bright=inverted,
    )
    return Provenance(
        format="DICOM",
        files=tuple(dict.fromkeys(str(s.file.path) for s in slices)),
        study_uid=first.study_uid or None,
        series_uid=first.series_uid or None,
        frame_of_reference_uid=first.frame_of_reference_uid or None,
        sop_instance_uids=tuple(dict.fromkeys(s.file.sop_instance_uid for s in slices if s.file.sop_instance_uid)),
        generator=PHANTOM_GENERATOR if manufacturers == {PHANTOM_GENERATOR} else None,
        notes=tuple(notes),
        policy=policy,
    )

"""Decoding the slices of an arranged DICOM scan into a Volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom_arrange import Arrangement, Slice
from medmaskrcnn.io.dicom_series import DicomScan
from medmaskrcnn.io.guard import reading
from medmaskrcnn.io.slice_values import Scaling, read_values
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
        values = read_values(slices, [Scaling(s.frame.slope, s.frame.intercept) for s in slices])
    first = scan.first
    return Volume(
        array=_channels_first(values, arrangement),
        grid=arrangement.grid,
        modality=first.modality or None,
        channel_kind=arrangement.channel_kind,
        window=slices[len(slices) // 2].frame.window,
        provenance=_provenance(scan, arrangement, slices),
    )


def _channels_first(values: NDArray[Any], arrangement: Arrangement) -> NDArray[Any]:
    """``(N, H, W)`` or ``(N, 3, H, W)`` to ``(C, D, H, W)``."""
    if arrangement.channel_kind == "colour":
        return np.ascontiguousarray(values.swapaxes(0, 1))
    return values.reshape(arrangement.shape)


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

"""Siemens mosaics: the slices of one MR volume, tiled into one picture, laid out again as slices.

A mosaic's Image Position (Patient) is that of a plane as large as the whole mosaic, centred on the first slice. The CSA
header (0029,1010) has the number of slices and the direction in which they follow one another, Spacing Between Slices
(0018,0088) their distance. Where one of these is missing, or they do not agree with the picture, the geometry is not
whole and the mosaic is refused. The arithmetic is nibabel's (``nibabel.nicom.dicomwrappers.MosaicWrapper``),
and the result is dcm2niix's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread

from medmaskrcnn.io.dicom.frames import Frame, Triple, read_frames
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.guard import convert_read_errors

_CSA_TAGS = [0x00290010, 0x00291010]  # private creator, CSA Image Header Info
_PARALLEL = 0.999


def read_slices(path: Path) -> tuple[DicomHeader, list[Frame]]:
    """Header and frames of a DICOM file as :func:`~medmaskrcnn.io.dicom.frames.read_frames`, mosaics laid out."""
    header, frames = read_frames(path)
    with convert_read_errors(path, "DICOM"):
        unfolded = unfold(header, frames) if header.is_mosaic else None
    return unfolded or (header, frames)


def unfold(header: DicomHeader, frames: Sequence[Frame]) -> tuple[DicomHeader, list[Frame]] | None:
    """The slices of a mosaic as frames, with the header of a multi-frame object of their size.

    Args:
        header: Header of the mosaic.
        frames: Its only frame, whose plane is that of the whole picture.

    Returns:
        ``None`` if its geometry is not whole.
    """
    if len(frames) != 1 or not frames[0].has_plane:
        return None
    whole, step = frames[0], frames[0].spacing_between_slices_mm
    n_slices, normal = _csa(header)
    side = math.ceil(math.sqrt(n_slices))
    if n_slices < 2 or normal is None or step is None or not 0 < step < math.inf:
        return None
    if header.rows % side or header.columns % side or abs(float(normal @ whole.normal_lps)) < _PARALLEL:
        return None
    rows, columns = header.rows // side, header.columns // side
    tiled = replace(header, rows=rows, columns=columns, n_frames=n_slices, native_dtype=None, mosaic_side=side)
    # From the corner of the plane that is as large as the mosaic to that of a slice with the same centre.
    across, down = (header.columns - columns) / 2, (header.rows - rows) / 2
    first = (
        np.asarray(whole.position_lps_mm)
        + np.multiply(whole.row_direction_lps, across * whole.spacing_mm[1])
        + np.multiply(whole.column_direction_lps, down * whole.spacing_mm[0])
    )
    positions = (_triple(first + i * step * normal) for i in range(n_slices))
    return tiled, [replace(whole, header=tiled, index=i, position_lps_mm=p) for i, p in enumerate(positions)]


def _csa(header: DicomHeader) -> tuple[int, Any]:
    """Number of slices, 0 if unknown, and unit vector ``(3,)`` in LPS from one to the next, ``None`` if unknown."""
    # here: nibabel warns on import that this part of it is for Siemens' time series alone
    from nibabel.nicom.csareader import get_csa_header, get_scalar, get_slice_normal

    dataset = dcmread(header.path, stop_before_pixels=True, specific_tags=_CSA_TAGS, force=True)
    csa = get_csa_header(dataset, "image")
    if csa is None:
        return 0, None
    count, normal = get_scalar(csa, "NumberOfImagesInMosaic"), get_slice_normal(csa)
    if count is None or normal is None or not np.isfinite(normal).all() or not np.linalg.norm(normal) > 0:
        return 0, None
    return int(count), np.asarray(normal, np.float64) / np.linalg.norm(normal)


def cut_mosaic(pixels: Any, header: DicomHeader) -> Any:
    """The slices ``(N, H, W)`` of a mosaic's pixels, ``(rows, columns)`` of the whole picture, row by row."""
    side = header.mosaic_side
    tiles = pixels.reshape(side, header.rows, side, header.columns).swapaxes(1, 2)
    return tiles.reshape(-1, header.rows, header.columns)[: header.n_frames]


def _triple(values: Any) -> Triple:
    a, b, c = (float(v) for v in values)
    return a, b, c

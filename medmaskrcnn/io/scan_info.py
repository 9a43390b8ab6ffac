"""Description of one scan, or of one file that is not a scan, as ``info`` prints it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import aff2axcodes

from medmaskrcnn.structures.grid import Grid

OBLIQUE_DEG = 1.0
"""Angle between a voxel axis and the patient's nearest axis from which a scan is called oblique."""


@dataclass(frozen=True)
class ScanInfo:
    """One scan, or one file set aside, as described by its headers; no voxels are decoded.

    Attributes:
        path: The file, or the folder of a series.
        format: ``"DICOM"``, ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"``, ``"PNG"``, ``"TIFF"``, ``"JPEG"`` or
            ``"unknown"``.
        kind: In words: ``"CT series"``, ``"RTSTRUCT"``, ``"NIfTI image"``, ``"not an image"``.
        modality: DICOM Modality (0008,0060), or ``None`` if the file does not give it.
        shape: Extents C, D, H, W, or ``None`` if it is not an image or cannot be read.
        spacing_mm: Distance between voxel centres along D, H, W, or ``None`` where unknown.
        orientation: Patient directions in which D, H, W count up, ``"S P L"``; ``None`` where unknown.
        series_uid: Series Instance UID (0020,000E), DICOM only.
        description: Series Description (0008,103E), or "".
        files: Number of files.
        segmentable: True if :func:`~medmaskrcnn.io.read.read_volume` reads it as a scan.
        reason: Why not, as a sentence without full stop; ``None`` if it is segmentable.
        notes: Notes for the user, one sentence each.
    """

    path: str
    format: str
    kind: str
    modality: str | None = None
    shape: tuple[int, int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    series_uid: str | None = None
    description: str = ""
    files: int = 1
    segmentable: bool = False
    reason: str | None = None
    notes: tuple[str, ...] = ()


def orientation_words(grid: Grid) -> str | None:
    """Directions of D, H, W as letters of R/L, A/P, S/I, ``"S P L"``; ``None`` for a picture without geometry."""
    if not grid.spacing_known:
        return None
    return " ".join(aff2axcodes(grid.affine_vox_to_ras))


def oblique_note(grid: Grid) -> tuple[str, ...]:
    """A note for a scan whose axes are not aligned with the patient's, else nothing."""
    if not grid.spacing_known:
        return ()
    directions = grid.affine_vox_to_ras[:3, :3] / np.asarray(grid.voxel_size)
    angle = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1))).max())
    return (
        (f"The scan is oblique: its axes deviate by up to {angle:.1f} degrees from the patient's.",)
        if angle > OBLIQUE_DEG
        else ()
    )

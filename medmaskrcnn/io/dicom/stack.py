"""The frames of one DICOM volume, sorted on one grid, or the reason why they have none."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import check_regular, order_along_normal, slice_affine, stack_affine
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.dicom.sop_classes import SECONDARY_CAPTURE_CLASSES
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid, pixel_grid
from medmaskrcnn.structures.volume import ChannelKind


@dataclass(frozen=True, eq=False)
class DicomStack:
    """Frames of one series that make up one volume.

    Attributes:
        frames: In the order of their files' paths.
        order: Indices into :attr:`frames`, sorted along the normal; empty if there is no grid.
        grid: The D, H, W grid, or ``None`` if the frames have no regular one.
        step_from: Source of the distance between slices.
        lower: ``(D,)``, only if slices are interpolated: for each slice of the grid the position in :attr:`order`
            of the frame below it.
        weight: ``(D,)`` with :attr:`lower`: the weight of the next frame in the slice, in [0, 1].
        problem: Why there is no grid, or which file is damaged; ``None`` if the volume can be read.
        excluded: Why this is not a scan (localizer, screenshot); ``None`` if it is one.
        separated_by: What distinguishes it from other volumes of its series, ``"EchoTime 4.6"``; "" if it is alone.
        n_left_out: Number of copies and stray slices that are not among the frames.
        can_be_resampled: True if irregular slices are the only problem.
        notes: Notes for the user, one sentence each.
    """

    frames: tuple[Frame, ...]
    order: tuple[int, ...] = ()
    grid: Grid | None = None
    step_from: Literal["positions", "header", "unknown"] = "unknown"
    lower: NDArray[np.int64] | None = None
    weight: FloatArray | None = None
    problem: str | None = None
    excluded: str | None = None
    separated_by: str = ""
    n_left_out: int = 0
    can_be_resampled: bool = False
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> DicomHeader:
        """The header that represents all frames."""
        return self.frames[0].header

    @property
    def ordered_frames(self) -> list[Frame]:
        """The frames of the grid, sorted along the normal."""
        return [self.frames[i] for i in self.order]

    @property
    def paths(self) -> list[Path]:
        """The files, each once, in the order of :attr:`frames`."""
        return list(dict.fromkeys(f.header.path for f in self.frames))

    @property
    def folder(self) -> Path:
        """The folder that contains all files, or the file if there is only one."""
        return self.paths[0] if len(self.paths) == 1 else Path(os.path.commonpath([p.parent for p in self.paths]))

    @property
    def is_secondary_capture(self) -> bool:
        """True for an image without a position in the patient: screenshot, scanned paper, dose report."""
        return self.header.sop_class_uid in SECONDARY_CAPTURE_CLASSES and not self.frames[0].has_plane

    @property
    def channel_kind(self) -> ChannelKind:
        """``"scalar"`` or ``"colour"``."""
        return "colour" if self.header.samples > 1 or self.header.photometric == "PALETTE COLOR" else "scalar"

    @property
    def shape(self) -> tuple[int, int, int, int] | None:
        """Extents C, D, H, W, or ``None`` without a grid."""
        return None if self.grid is None else (3 if self.channel_kind == "colour" else 1, *self.grid.shape)


def arrange(stack: DicomStack) -> DicomStack:
    """Sort frames of one size, orientation and pixel spacing, and place them on a grid.

    Raises:
        ReadError: if slices are duplicated, missing, unevenly spaced (IrregularError) or irregularly shifted.
    """
    frames, header = stack.frames, stack.header
    if not all(f.has_plane for f in frames):
        if len(stack.paths) > 1:
            raise ReadError(
                f"{frames[0].name} and the other slices do not tell where they lie: ImagePositionPatient, "
                f"ImageOrientationPatient or PixelSpacing is missing. Export the series with its geometry"
            )
        grid = pixel_grid((len(frames), header.rows, header.columns))
        note = "The file does not tell where the image lies in the patient; measurements are in pixels."
        return replace(stack, order=tuple(range(len(frames))), grid=grid, notes=(*stack.notes, note))
    if len(frames) == 1:
        return _single_slice(stack)
    order = order_along_normal(frames)
    ordered = [frames[i] for i in order]
    notes = check_regular(ordered)
    affine = stack_affine(ordered[0], ordered[-1], len(frames) - 1)
    grid = Grid((len(frames), header.rows, header.columns), affine)
    return replace(stack, order=tuple(order), grid=grid, step_from="positions", notes=(*stack.notes, *notes))


def _single_slice(stack: DicomStack) -> DicomStack:
    """Arrange a single slice: only here is the step between slices taken from the header."""
    frame = stack.frames[0]
    shape = (1, frame.header.rows, frame.header.columns)
    stated = (("distance to the next", frame.spacing_between_slices_mm), ("thickness", frame.slice_thickness_mm))
    what, step = next(((name, mm) for name, mm in stated if mm is not None and 0 < mm < np.inf), ("", None))
    if step is not None:
        note = f"A single slice; its {what} of {step:g} mm is taken from the header."
        grid = Grid(shape, slice_affine(frame, step))
        return replace(stack, order=(0,), grid=grid, step_from="header", notes=(*stack.notes, note))
    axes = np.eye(4)
    axes[:3, :3] = np.column_stack([frame.normal_lps, frame.column_direction_lps, frame.row_direction_lps])
    note = "A single slice of unknown thickness; measurements are in pixels."
    grid = Grid(shape, LPS_FROM_RAS @ axes, spacing_known=False)
    return replace(stack, order=(0,), grid=grid, notes=(*stack.notes, note))

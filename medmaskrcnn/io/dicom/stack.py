"""The frames of one DICOM volume, sorted on one grid, or the reason why they have none."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import check_drift, check_regular, order_along_normal, slice_affine, stack_affine
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.dicom.scale_2d import UNKNOWN
from medmaskrcnn.io.dicom.sop_classes import SECONDARY_CAPTURE_CLASSES
from medmaskrcnn.io.dicom.tiles import check_tiles
from medmaskrcnn.structures.grid import FloatArray, Grid, pixel_grid
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
        remedy: An option by which it can be read in spite of :attr:`problem`.
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
    remedy: Remedy | None = None
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
        return _without_plane(stack)
    if len(frames) == 1:
        return _single_slice(stack)
    order = order_along_normal(frames)
    ordered = [frames[i] for i in order]
    notes = [*check_drift(ordered), *check_regular(ordered)]
    affine = stack_affine(ordered[0], ordered[-1], len(frames) - 1)
    grid = Grid((len(frames), header.rows, header.columns), affine)
    return replace(stack, order=tuple(order), grid=grid, step_from="positions", notes=(*stack.notes, *notes))


def _without_plane(stack: DicomStack) -> DicomStack:
    """Arrange frames of a file that does not tell where they lie in the patient: on a grid of pixels, or of mm."""
    frames, header = stack.frames, stack.header
    shape = len(frames), header.rows, header.columns
    notes: tuple[str, ...] = ()
    if header.matrix is not None:
        check_tiles(frames, header.matrix)
        shape = (1, *header.matrix)
        notes = (
            f"A picture of {header.matrix[0]} x {header.matrix[1]} pixels, put together from {len(frames)} tiles.",
        )
    scale = frames[0].scale or UNKNOWN
    film = shape[0] > 1  # the first axis is time, or nothing that has a length
    height, width = scale.pixel_mm or (scale.aspect, 1.0)
    thickness = frames[0].slice_thickness_mm
    known = scale.pixel_mm is not None and not film
    step = thickness if known and thickness is not None and 0 < thickness < np.inf else 1.0
    affine = pixel_grid(shape).affine_vox_to_ras @ np.diag([step, 1.0 if film else height, 1.0 if film else width, 1.0])
    note = scale.note
    if known and thickness != step:
        note += " It has no thickness; volumes are areas times 1 mm."
    return replace(
        stack,
        order=tuple(range(len(frames))),
        grid=Grid(shape, affine, spacing_known=known),
        notes=(*stack.notes, *notes, note),
    )


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
    note = "A single slice of unknown thickness; 1 mm is taken for it, so volumes are areas times 1 mm."
    return replace(stack, order=(0,), grid=Grid(shape, slice_affine(frame, 1.0)), notes=(*stack.notes, note))

"""Slices of one DICOM scan in order, on one grid, or a ReadError that says why they have none.

Where the user asks for it, slices that are missing, doubled or unevenly spaced are arranged too: then the arrangement
says how even slices are interpolated from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import Plane, stack_planes
from medmaskrcnn.io.dicom.header import DicomFile
from medmaskrcnn.io.dicom.irregular import IrregularStack, even_stack
from medmaskrcnn.structures.grid import LPS_FROM_RAS, Grid, pixel_grid
from medmaskrcnn.structures.volume import ChannelKind


@dataclass(frozen=True, eq=False)
class Slice:
    """One frame of one file."""

    file: DicomFile
    frame: Frame

    @property
    def name(self) -> str:
        """What errors call it: ``"slice 12 (IM012.dcm)"``, or ``"frame 3 (enhanced.dcm)"``."""
        if len(self.file.frames) > 1:
            return f"frame {self.frame.index + 1} ({self.file.path.name})"
        number = "" if self.file.instance_number is None else f" {self.file.instance_number}"
        return f"slice{number} ({self.file.path.name})"


@dataclass(frozen=True, eq=False)
class Arrangement:
    """A scan's slices in reading order.

    Attributes:
        slices: Sorted along the normal.
        grid: The D, H, W grid.
        channel_kind: ``"scalar"`` or ``"colour"``.
        step_from: What the distance between slices was taken from.
        notes: What the user should know, one sentence each.
        resampling: How the grid's slices are interpolated from :attr:`slices`, where these are irregular.
    """

    slices: tuple[Slice, ...]
    grid: Grid
    channel_kind: ChannelKind
    step_from: Literal["positions", "header", "unknown"]
    notes: tuple[str, ...]
    resampling: IrregularStack | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Extents C, D, H, W."""
        return (3 if self.channel_kind == "colour" else 1, *self.grid.shape)


def arrange(slices: Sequence[Slice], *, resample_irregular: bool = False) -> Arrangement:
    """Put slices of one size, orientation and pixel spacing in order.

    Args:
        slices: Of one volume.
        resample_irregular: Accept slices that are doubled, missing or unevenly spaced.

    Raises:
        ReadError: if slices are doubled, missing, unevenly spaced (unless accepted) or irregularly shifted.
    """
    first = slices[0].file
    colour = first.samples > 1 or first.photometric == "PALETTE COLOR"
    planes = [s.frame.plane for s in slices if s.frame.plane is not None]
    if len(planes) < len(slices) and len({s.file.path for s in slices}) > 1:
        raise ReadError(
            f"{slices[0].name} and the other slices do not tell where they lie: ImagePositionPatient, "
            f"ImageOrientationPatient or PixelSpacing is missing. Export the series with its geometry"
        )
    kind: ChannelKind = "colour" if colour else "scalar"
    if len(planes) < len(slices):
        grid = pixel_grid((len(slices), first.rows, first.columns))
        note = "The file does not tell where the image lies in the patient; measurements are in pixels."
        return Arrangement(tuple(slices), grid, kind, "unknown", (note,))
    if len(slices) == 1:
        return _single(slices[0], planes[0], kind)
    if resample_irregular:
        return _even(slices, planes, kind)
    stack = stack_planes(planes, names=[s.name for s in slices])
    grid = Grid((len(slices), first.rows, first.columns), stack.affine_vox_to_ras)
    return Arrangement(tuple(slices[i] for i in stack.order), grid, kind, "positions", stack.notes)


def _even(slices: Sequence[Slice], planes: Sequence[Plane], kind: ChannelKind) -> Arrangement:
    """Irregular slices and how to interpolate even ones from them."""
    numbered = sorted(range(len(slices)), key=lambda i: (slices[i].file.instance_number or 0, slices[i].frame.index))
    slices, planes = [slices[i] for i in numbered], [planes[i] for i in numbered]
    stack = even_stack(planes, names=[s.name for s in slices])
    first = slices[0].file
    grid = Grid((len(stack.below), first.rows, first.columns), stack.affine_vox_to_ras)
    return Arrangement(tuple(slices[i] for i in stack.order), grid, kind, "positions", stack.notes, stack)


def _single(only: Slice, plane: Plane, kind: ChannelKind) -> Arrangement:
    """One slice: the step to the next that there is not comes from the header, here alone."""
    shape = (1, only.file.rows, only.file.columns)
    frame = only.frame
    told = (("distance to the next", frame.between_mm), ("thickness", frame.thickness_mm))
    what, step = next(((name, mm) for name, mm in told if mm is not None and 0 < mm < np.inf), ("", None))
    if step is not None:
        stack = stack_planes([plane], names=[only.name], thickness_mm=step)
        note = f"A single slice; its {what} of {step:g} mm is taken from the header."
        return Arrangement((only,), Grid(shape, stack.affine_vox_to_ras), kind, "header", (note,))
    axes = np.eye(4)
    axes[:3, :3] = np.column_stack([plane.normal_lps, plane.column_direction_lps, plane.row_direction_lps])
    note = "A single slice of unknown thickness; measurements are in pixels."
    return Arrangement((only,), Grid(shape, LPS_FROM_RAS @ axes, spacing_known=False), kind, "unknown", (note,))

"""Slices of one DICOM scan in order: channels of slices on one grid.

What was exported as "a series" may hold one volume, one volume at several times, or a single picture. Here slices
that belong together become an arrangement ``[channel][slice]``, or a ReadError says why they have no regular grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.dicom.frames import TIME_KEYWORDS, Frame
from medmaskrcnn.dicom.geometry import MIN_STEP_MM, Plane, Stack, distances_mm, stack_planes
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom_header import DicomFile
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
        channels: One tuple of slices, sorted along the normal, for each time, echo or b-value.
        grid: The D, H, W grid that all channels share.
        channel_kind: Of the array's C axis; a colour scan has one entry in ``channels`` and three in C.
        notes: What the user should know, one sentence each.
    """

    channels: tuple[tuple[Slice, ...], ...]
    grid: Grid
    channel_kind: ChannelKind
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Extents C, D, H, W."""
        return (3 if self.channel_kind == "colour" else len(self.channels), *self.grid.shape)


def arrange(slices: Sequence[Slice]) -> Arrangement:
    """Put slices of one size, orientation and pixel spacing in order.

    Raises:
        ReadError: if slices are doubled, missing, unevenly spaced or irregularly shifted.
    """
    first = slices[0].file
    colour = first.samples > 1 or first.photometric == "PALETTE COLOR"
    planes = [s.frame.plane for s in slices if s.frame.plane is not None]
    if len(planes) < len(slices) and len({s.file.path for s in slices}) > 1:
        raise ReadError(
            f"{slices[0].name} and the other slices do not tell where they lie: ImagePositionPatient, "
            f"ImageOrientationPatient or PixelSpacing is missing. Export the series with its geometry"
        )
    if len(planes) < len(slices):
        grid = pixel_grid((len(slices), first.rows, first.columns))
        note = "The file does not tell where the image lies in the patient; measurements are in pixels."
        return Arrangement((tuple(slices),), grid, "colour" if colour else "scalar", (note,))
    if len(slices) == 1:
        return _single(slices[0], planes[0], "colour" if colour else "scalar")
    channels, time_notes = split_times(slices)
    stacks = [_stack(channel) for channel in channels]
    if any(not np.allclose(s.affine_vox_to_ras, stacks[0].affine_vox_to_ras, atol=MIN_STEP_MM) for s in stacks):
        raise ReadError("the series repeats its slices at shifted places; separate the repetitions into series")
    if colour and len(channels) > 1:
        raise ReadError("the series repeats colour slices at the same places; separate the repetitions into series")
    ordered = tuple(tuple(c[i] for i in s.order) for c, s in zip(channels, stacks, strict=True))
    grid = Grid((len(ordered[0]), first.rows, first.columns), stacks[0].affine_vox_to_ras)
    kind: ChannelKind = "colour" if colour else "scalar" if len(channels) == 1 else "unknown"
    return Arrangement(ordered, grid, kind, (*stacks[0].notes, *time_notes))


def _stack(slices: Sequence[Slice]) -> Stack:
    planes = [s.frame.plane for s in slices if s.frame.plane is not None]
    thickness = slices[0].frame.thickness_mm
    return stack_planes(planes, names=[s.name for s in slices], thickness_mm=thickness)


def _single(only: Slice, plane: Plane, kind: ChannelKind) -> Arrangement:
    """One slice: its extent across itself is its thickness, the only place where Slice Thickness is used."""
    shape = (1, only.file.rows, only.file.columns)
    if only.frame.thickness_mm is not None and only.frame.thickness_mm > 0:
        note = f"A single slice; its thickness of {only.frame.thickness_mm:g} mm is taken from the header."
        return Arrangement(((only,),), Grid(shape, _stack([only]).affine_vox_to_ras), kind, (note,))
    axes = np.eye(4)
    axes[:3, :3] = np.column_stack([plane.normal_lps, plane.column_direction_lps, plane.row_direction_lps])
    note = "A single slice of unknown thickness; measurements are in pixels."
    return Arrangement(((only,),), Grid(shape, LPS_FROM_RAS @ axes, spacing_known=False), kind, (note,))


def split_times(slices: Sequence[Slice]) -> tuple[list[list[Slice]], tuple[str, ...]]:
    """Split slices that repeat the same places by the attribute that tells the repetitions apart.

    Returns:
        One list of slices a repetition, by rising value, and a note; a single list where nothing repeats or no
        attribute explains the repetition (:func:`stack_planes` then refuses the doubled slices).
    """
    n_places = _count_places(slices)
    repeats, rest = divmod(len(slices), n_places)
    if repeats == 1 or rest:
        return [list(slices)], ()
    for keyword in TIME_KEYWORDS:
        groups: dict[float | str, list[Slice]] = defaultdict(list)
        for one in slices:
            groups[one.frame.times.get(keyword, "")].append(one)
        if len(groups) == repeats and all(len(g) == n_places == _count_places(g) for g in groups.values()):
            values = sorted(groups, key=lambda v: (isinstance(v, str), v))
            note = f"Each slice is there {repeats} times (by {keyword}); the repetitions are read as channels."
            return [groups[v] for v in values], (note,)
    return [list(slices)], ()


def _count_places(slices: Sequence[Slice]) -> int:
    """Number of different positions along the normal."""
    along = np.sort(distances_mm([s.frame.plane for s in slices if s.frame.plane is not None]))
    return 1 + int((np.diff(along) >= MIN_STEP_MM).sum())

"""Slices that belong together by their geometry, while their identifiers say otherwise, and slices sent twice.

Writers give each slice a frame of reference of its own, split a series over two Series Instance UIDs, or send an image
again under another SOP Instance UID. Geometry from positions is exact all the same; only identity is in doubt. So
nothing is joined or dropped silently: it is told, and done at the user's request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import MIN_STEP_MM, distances_mm, order_along_normal, same_orientation
from medmaskrcnn.io.dicom.pixels import read_stored
from medmaskrcnn.io.dicom.stack import DicomStack, arrange


def join_series(stacks: Sequence[DicomStack], *, merge_series: bool) -> list[DicomStack]:
    """Find volumes whose slices are one even stack, although their identifiers differ.

    Args:
        stacks: Volumes of any number of series.
        merge_series: Make one volume of those that belong together. Otherwise each is told of the others; single
            slices of one series, which only their frames of reference keep apart, become one that is refused.
    """
    groups: dict[tuple[object, ...], list[DicomStack]] = defaultdict(list)
    for stack in stacks:
        if stack.excluded is None and stack.frames[0].has_plane and not stack.separated_by:
            groups[_alike(stack)].append(stack)
    replaced: dict[DicomStack, list[DicomStack]] = {}
    for parts in groups.values():
        whole = _one_even_stack(parts)
        if whole is None:
            continue
        differing = _differing(parts)
        if merge_series:
            note = f"{len(parts)} parts with different {differing} were read as one series, as asked."
            joined = [replace(whole, notes=(*whole.notes, note))]
        elif all(len(part.frames) == 1 for part in parts):
            problem = f"its {len(parts)} slices have different {differing}, but make one even stack"
            joined = [replace(whole, problem=problem, remedy=Remedy.MERGE_SERIES)]
        else:
            n = len(whole.frames)
            note = f"With other slices of different {differing} it makes one even stack of {n}; these can be merged."
            replaced |= {part: [replace(part, notes=(*part.notes, note))] for part in parts}
            continue
        replaced |= {part: [] for part in parts} | {parts[0]: joined}
    return [one for stack in stacks for one in replaced.get(stack, [stack])]


def _alike(stack: DicomStack) -> tuple[object, ...]:
    """What slices of one series share even if its UIDs are wrong."""
    header = stack.header
    return header.study_uid, header.modality, header.description, header.rows, header.columns, header.photometric


def _one_even_stack(parts: Sequence[DicomStack]) -> DicomStack | None:
    """All parts as one stack if that is even and none of them repeats a slice; else ``None``."""
    first = parts[0].frames[0]
    frames = [frame for part in parts for frame in part.frames]
    if len(parts) < 2 or len(frames) < 3 or not all(same_orientation(first, frame) for frame in frames):
        return None
    left_out = sum(part.n_left_out for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    whole = DicomStack(tuple(frames), n_left_out=left_out, notes=notes)
    try:
        arrange(whole)
    except ReadError:
        return None
    return whole


def _differing(parts: Sequence[DicomStack]) -> str:
    """Which of their identifiers keeps parts of a series apart."""
    series = len({part.header.series_uid for part in parts}) > 1
    frames = len({part.header.frame_of_reference_uid for part in parts}) > 1
    return " and ".join(name for name, differs in (("series", series), ("frames of reference", frames)) if differs)


def repeated_images(stack: DicomStack) -> list[Frame]:
    """Frames that repeat another at their position, pixel for pixel; none if one of them is another image."""
    order = order_along_normal(stack.frames)
    along = distances_mm(stack.frames)[order]
    repeats: list[Frame] = []
    kept = order[0]
    for i, gap in zip(order[1:], np.diff(along), strict=True):
        if gap >= MIN_STEP_MM:
            kept = i
        elif _same_image(stack.frames[kept], stack.frames[i]):
            repeats.append(stack.frames[i])
        else:
            return []
    return repeats


def without_repeats(stack: DicomStack, repeats: Sequence[Frame]) -> DicomStack:
    """The stack without some frames, which is noted."""
    dropped = set(repeats)
    left = tuple(frame for frame in stack.frames if frame not in dropped)
    note = f"{len(repeats)} images that repeat another pixel for pixel were dropped, as asked."
    return replace(stack, frames=left, notes=(*stack.notes, note), n_left_out=stack.n_left_out + len(repeats))


def _same_image(one: Frame, other: Frame) -> bool:
    """Whether two frames have the same pixels and scaling."""
    if (one.slope, one.intercept, one.position_lps_mm) != (other.slope, other.intercept, other.position_lps_mm):
        return False
    return bool(np.array_equal(read_stored([one]), read_stored([other])))

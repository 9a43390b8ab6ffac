"""Groups DICOM frames into volumes.

File names and folders are not trusted, headers are: the frames of one scan share Series Instance UID, frame of
reference, size, colour, orientation and pixel spacing. The rest is listed and excluded with the reason.
"""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import DoubledError, IrregularError, same_orientation
from medmaskrcnn.io.dicom.identity import join_series, repeated_images
from medmaskrcnn.io.dicom.pixels import decode_file
from medmaskrcnn.io.dicom.separate import separate_volumes
from medmaskrcnn.io.dicom.stack import DicomStack, arrange

_LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT"})
_SCREEN_TYPES = frozenset(
    {"SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "DOSE", "DOSE REPORT", "CSA REPORT", "PROTOCOL", "EXAM SUMMARY"}
)
_REPORT_WORDS = re.compile(
    r"(?<![a-z])(exam[ _]?(summary|card|protocol)|dose[ _]?(report|info|summary|record|page|sheet)|"
    r"patient[ _]?protocol)(?![a-z])",
    re.IGNORECASE,
)
_SLIDE_TYPES = frozenset({"LABEL", "OVERVIEW"})
_LOCALIZER_WORDS = re.compile(
    r"(?<![a-z])(localizers?|localisers?|scouts?|topograms?|surview|survey|scanogram)(?![a-z])", re.IGNORECASE
)
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
_STRAY_SHARE = 0.1
_STRAY_SINGLE = 3  # in a series of at least this many slices, a single other one is a stray


def group_stacks(
    frames: Iterable[Frame], damaged: Mapping[Path, str] | None = None, *, merge_series: bool = False
) -> list[DicomStack]:
    """Group frames into volumes, in the order of their first file's path.

    Args:
        frames: Frames of any number of files; those of one file in their order.
        damaged: DICOM files whose header could not be read, and why: they may belong to any scan in their folder.
        merge_series: See :class:`~medmaskrcnn.io.options.ReadingOptions`.
    """
    by_key: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in sorted(frames, key=lambda f: str(f.header.path)):
        by_key[_key(frame)].append(frame)
    groups = [group for alike in by_key.values() for group in _by_orientation(alike)]
    # Volumes of one series stay together, in the order in which they were separated.
    first_paths: dict[Frame, str] = {}
    for group in groups:
        first_paths |= dict.fromkeys(group, str(min(f.header.path for f in group)))
    stacks = [
        _with_exclusion(volume)
        for group in groups
        for one in _without_copies(group)
        for volume in separate_volumes(one)
    ]
    stacks = join_series(sorted(stacks, key=lambda s: first_paths[s.frames[0]]), merge_series=merge_series)
    stacks = _exclude_strays(stacks)
    damaged_in = {path.parent: reason for path, reason in (damaged or {}).items()}
    return [_arranged(stack, damaged_in) for stack in stacks]


def _key(frame: Frame) -> tuple[object, ...]:
    header = frame.header
    series = header.series_uid or f"folder {header.path.parent}"
    colour = "colour" if header.samples > 1 else header.photometric
    # An image without a position in the patient cannot be sorted into a stack: each file is an image of its own. This
    # does not apply to a slice of a cross-sectional scan that lacks its position.
    alone = None if frame.has_plane or header.modality in _CROSS_SECTIONAL else header.path
    localizer = not _LOCALIZER_TYPES.isdisjoint(header.image_type)
    size = header.rows, header.columns
    return (series, header.frame_of_reference_uid, header.modality, size, colour, localizer, alone)


def _by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            # Values may drift from slice to slice, so the last one counts too.
            near = any(same_orientation(other, frame) for other in (group[0], group[-1]))
            if group[0].has_plane == frame.has_plane and (not frame.has_plane or near):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _without_copies(frames: Sequence[Frame]) -> list[DicomStack]:
    """Leave out files that are exact copies of another; split a series that is stored in two folders."""
    kept: list[Frame] = []
    by_instance: dict[tuple[str, int], list[Frame]] = defaultdict(list)
    for frame in frames:
        header = frame.header
        same = by_instance[(header.sop_instance_uid or str(header.path), frame.index)]
        if not any(filecmp.cmp(header.path, other.header.path, shallow=False) for other in same):
            same.append(frame)
            kept.append(frame)
    n_copies = len(frames) - len(kept)
    notes = (f"{n_copies} slices are there twice, byte for byte; one of each is used.",) if n_copies else ()
    folders = {f.header.path.parent for f in kept}
    if len(folders) > 1 and any(len(same) > 1 for same in by_instance.values()):
        stored = [[f for f in kept if f.header.path.parent == folder] for folder in sorted(folders)]
    else:
        stored = [kept]
    return [DicomStack(tuple(frames), n_left_out=n_copies, notes=notes) for frames in stored]


def _with_exclusion(stack: DicomStack) -> DicomStack:
    """Note which volume of its series this is, and record why an image is not a scan (localizer, screenshot)."""
    notes = stack.notes
    if stack.separated_by:
        notes = (*notes, f"The series holds several volumes; this is the one of {stack.separated_by}.")
    words = {word.strip().upper() for word in stack.header.image_type}
    excluded = None
    if words & _LOCALIZER_TYPES or _LOCALIZER_WORDS.search(stack.header.description):
        excluded = "a localizer (scout): an overview for planning, not a scan"
    elif stack.header.modality == "SM" and words & _SLIDE_TYPES:
        excluded = "the label or an overview of a slide, not the slide itself"
    elif stack.is_secondary_capture or words & _SCREEN_TYPES or _REPORT_WORDS.search(stack.header.description):
        excluded = "a secondary capture (screenshot, report page or scanned paper), not a scan"
    return replace(stack, notes=notes, excluded=excluded)


def _exclude_strays(stacks: list[DicomStack]) -> list[DicomStack]:
    """Exclude stray slices: a few slices of another size or orientation inside a series are not a separate scan."""
    by_series: dict[str, list[DicomStack]] = defaultdict(list)
    for stack in stacks:
        if stack.header.series_uid and stack.excluded is None and not stack.separated_by:
            by_series[stack.header.series_uid].append(stack)
    changed: dict[DicomStack, DicomStack] = {}
    for same in by_series.values():
        main = max(same, key=lambda s: len(s.frames))
        most = len(main.frames)
        strays = [s for s in same if s is not main and _is_stray(len(s.frames), most)]
        for stray in strays:
            reason = f"{len(stray.frames)} of another size, orientation or kind than the {most} slices of its series"
            changed[stray] = replace(stray, excluded=reason)
        if strays:
            n = sum(len(s.frames) for s in strays)
            note = f"{n} of the series' slices differ in size, orientation or kind; they are left out."
            changed[main] = replace(main, notes=(*main.notes, note), n_left_out=main.n_left_out + n)
    return [changed.get(stack, stack) for stack in stacks]


def _is_stray(n: int, most: int) -> bool:
    return n <= _STRAY_SHARE * most or (n == 1 and most >= _STRAY_SINGLE)


def _arranged(stack: DicomStack, damaged_in: dict[Path, str]) -> DicomStack:
    """Arrange the frames if possible, else record the reason."""
    problem, can_be_resampled, remedy = stack.problem, False, stack.remedy
    try:
        stack = arrange(stack)
    except ReadError as error:
        problem, can_be_resampled = str(error), isinstance(error, IrregularError)
        if isinstance(error, DoubledError) and (repeats := _repeats_among(stack)):
            problem = f"{len(repeats)} images repeat another pixel for pixel: {problem}"
            remedy = Remedy.DROP_DUPLICATES
    empty = sum(f.slope == 0 for f in stack.frames)
    if empty == len(stack.frames):
        problem = "RescaleSlope is 0, so the image has no values. Export the scan again"
    elif empty:
        note = f"{empty} slices have a slope of 0: they hold no counts, and their values are the intercept."
        stack = replace(stack, notes=(*stack.notes, note))
    headers = [f.header for f in stack.frames]
    truncated = next((h.path for h in headers if h.is_truncated), None)
    bad = next((damaged_in[f] for f in {h.path.parent for h in headers} if f in damaged_in), None)
    if truncated is not None:
        problem = f"{truncated.name} is cut short: it ends before its pixel data does. Copy or export it again"
    elif bad is not None and stack.frames[0].has_plane:
        problem = f"a file in its folder that may be one of its slices cannot be read: {bad}"
    elif stack.header.is_mosaic and not stack.header.mosaic_side:
        problem = (
            "a mosaic: many slices tiled into one picture, with the geometry of none. Export it as an enhanced "
            "multi-frame object or convert it with dcm2niix"
        )
    elif problem is None and stack.excluded is None:
        problem = _why_not_decoded(stack.ordered_frames[0])
    can_be_resampled &= truncated is None and bad is None
    return replace(stack, problem=problem, can_be_resampled=can_be_resampled, remedy=remedy)


def _repeats_among(stack: DicomStack) -> list[Frame]:
    try:
        return repeated_images(stack)
    except ReadError:
        return []  # damaged, which is told elsewhere


def _why_not_decoded(frame: Frame) -> str | None:
    """Why a compressed frame cannot be decoded; ``None`` if it can. Uncompressed ones need no decoder."""
    if frame.header.native_dtype is not None:
        return None
    try:
        decode_file(frame.header, index=frame.index)
    except ReadError as error:
        return error.reason
    return None

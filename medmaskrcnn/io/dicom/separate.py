"""Splits a series into its volumes, as far as its headers distinguish them.

A series may contain its slices several times: echoes, phases, b-values, time points, magnitude and phase. Or the table
was moved between two stations. Each volume is named by what distinguishes it from the others, such as "EchoTime 4.6".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.geometry import (
    MIN_STEP_MM,
    SIDEWAYS_TOLERANCE_MM,
    distances_mm,
    order_along_normal,
    sideways_mm,
)
from medmaskrcnn.io.dicom.header import DIMENSION_KEYWORDS
from medmaskrcnn.io.dicom.stack import DicomStack

_MIN_STATION = 3
"""Minimum number of slices for a sideways-shifted part to be a station of its own, not misplaced slices."""

_BY_ORDER = "repetition"


def separate_volumes(stack: DicomStack) -> list[DicomStack]:
    """Split frames of one orientation into volumes.

    Frames of different stacks are different volumes. Slices at the same position are separated by the first attribute
    of :data:`~medmaskrcnn.io.dicom.header.DIMENSION_KEYWORDS` that distinguishes them, by several of them, or, if none
    does, by Instance Number if its order is one of the usual two. If nothing explains a repetition, the slices stay
    together, and :func:`~medmaskrcnn.io.dicom.stack.arrange` refuses the duplicates.
    """
    if not all(f.has_plane for f in stack.frames) or stack.header.samples > 1:
        return [stack]
    return [
        station
        for with_one_id in _by_stack_id(stack)
        for volume in _by_attribute(with_one_id)
        for station in _by_station(volume)
    ]


def _by_stack_id(stack: DicomStack) -> list[DicomStack]:
    """Split by Stack ID (0020,9056), by which enhanced objects state the frames of a volume."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in stack.frames:
        groups[frame.stack_id].append(frame)
    if len(groups) == 1:
        return [stack]
    return [_subset(stack, groups[stack_id], "StackID", stack_id) for stack_id in sorted(groups)]


def _subset(stack: DicomStack, frames: Iterable[Frame], keyword: str, value: float | str) -> DicomStack:
    """One volume of a stack, with what distinguishes it from the others."""
    text = f"{keyword} {value:g}" if isinstance(value, float) else f"{keyword} {value or 'unset'}"
    name = f"{stack.separated_by}, {text}" if stack.separated_by else text
    return replace(stack, frames=tuple(frames), separated_by=name)


def _by_attribute(stack: DicomStack) -> list[DicomStack]:
    repeats = _repeats(stack.frames)
    if repeats == 1:
        return [stack]
    for keyword in DIMENSION_KEYWORDS:
        groups: dict[float | str, list[Frame]] = defaultdict(list)
        for frame in stack.frames:
            groups[frame.dimensions.get(keyword, "")].append(frame)
        # The repetitions must be divided among the groups: otherwise the attribute changes from slice to slice.
        if len(groups) > 1 and sum(_repeats(g) for g in groups.values()) == repeats:
            values = sorted(groups, key=lambda v: (isinstance(v, str), v))
            volumes = [_subset(stack, groups[v], keyword, v) for v in values]
            return [finer for volume in volumes for finer in _by_attribute(volume)]
    return _by_order(stack, repeats)


def _by_order(stack: DicomStack, repeats: int) -> list[DicomStack]:
    """Separate time points that only the order of acquisition distinguishes.

    Either each run of slices covers all positions once (one volume after the other), or each run stays at one position
    (one slice after the other, each at all times).
    """
    n_places, rest = divmod(len(stack.frames), repeats)
    ordered = sorted(stack.frames, key=lambda f: (f.header.instance_number or 0, f.index))
    numbers = {(f.header.instance_number, f.index) for f in ordered}
    if rest or n_places < 2 or len(numbers) < len(ordered):
        return [stack]
    runs = [ordered[i * n_places : (i + 1) * n_places] for i in range(repeats)]
    if any(_repeats(run) > 1 for run in runs):
        at_one_place = [ordered[i * repeats : (i + 1) * repeats] for i in range(n_places)]
        if any(_repeats(run) < repeats for run in at_one_place):
            return [stack]
        runs = [list(run) for run in zip(*at_one_place, strict=True)]
    return [_subset(stack, run, _BY_ORDER, float(i)) for i, run in enumerate(runs, start=1)]


def _repeats(frames: Sequence[Frame]) -> int:
    """Largest number of frames at one position."""
    along = np.sort(distances_mm(frames))
    place = np.cumsum(np.concatenate([[0], np.diff(along) >= MIN_STEP_MM]))
    return max(Counter(place.tolist()).values())


def _by_station(stack: DicomStack) -> list[DicomStack]:
    """Split where the table was moved sideways, into runs of slices that each lie on a straight line."""
    order = np.array(order_along_normal(stack.frames))
    steps = np.diff(sideways_mm(stack.frames)[order], axis=0)
    if len(steps) < 2 * _MIN_STATION - 1:
        return [stack]
    usual = np.median(steps, axis=0)
    jumps = np.flatnonzero(np.linalg.norm(steps - usual, axis=1) > SIDEWAYS_TOLERANCE_MM)
    runs = np.split(order, jumps + 1)
    if len(runs) == 1 or min(len(run) for run in runs) < _MIN_STATION:
        return [stack]
    return [
        _subset(stack, (stack.frames[int(i)] for i in run), "station", float(n)) for n, run in enumerate(runs, start=1)
    ]

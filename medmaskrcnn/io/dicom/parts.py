"""One series, several volumes: what its headers tell apart becomes separate.

A series may hold its slices several times: echoes, phases, b-values, time points, magnitude and phase. Or its table
was moved between two stations. Each part is a scan of its own with a name, such as "EchoTime 4.6".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.io.dicom.arrange import Slice
from medmaskrcnn.io.dicom.frames import TIME_KEYWORDS
from medmaskrcnn.io.dicom.geometry import MIN_STEP_MM, SIDEWAYS_TOLERANCE_MM, distances_mm, sideways_mm

_MIN_STATION = 3
"""Slices from which on a part shifted sideways is a station of its own, not a slice that lies wrong."""

_BY_ORDER = "repetition"


@dataclass(frozen=True, eq=False)
class Part:
    """Slices of one volume, and what tells them from the others of their series ("" where they are alone)."""

    slices: tuple[Slice, ...]
    name: str = ""


def separate(slices: Sequence[Slice]) -> list[Part]:
    """Split slices of one orientation into volumes.

    Frames of different stacks are different volumes. Slices that repeat a place are told apart by the first attribute
    of :data:`~medmaskrcnn.io.dicom.frames.TIME_KEYWORDS` that does, by several of them, or, where none does, by
    Instance Number if its order is one of the usual two. Where nothing explains a repetition the slices stay together,
    and arranging them refuses the doubled ones.
    """
    if any(s.frame.plane is None for s in slices) or slices[0].file.samples > 1:
        return [Part(tuple(slices))]
    stacks = _by_stack(Part(tuple(slices)))
    return [station for stack in stacks for part in _by_attribute(stack) for station in _by_station(part)]


def _by_stack(part: Part) -> list[Part]:
    """Enhanced objects say which frames make a volume: Stack ID (0020,9056)."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in part.slices:
        groups[one.frame.stack].append(one)
    if len(groups) == 1:
        return [part]
    return [Part(tuple(groups[stack]), _joined("", "StackID", stack)) for stack in sorted(groups)]


def _by_attribute(part: Part) -> list[Part]:
    repeats = _repeats(part.slices)
    if repeats == 1:
        return [part]
    for keyword in TIME_KEYWORDS:
        groups: dict[float | str, list[Slice]] = defaultdict(list)
        for one in part.slices:
            groups[one.frame.times.get(keyword, "")].append(one)
        # Groups that share no repetition between them: otherwise the attribute changes from slice to slice.
        if len(groups) > 1 and sum(_repeats(g) for g in groups.values()) == repeats:
            values = sorted(groups, key=lambda v: (isinstance(v, str), v))
            named = [Part(tuple(groups[v]), _joined(part.name, keyword, v)) for v in values]
            return [finer for one in named for finer in _by_attribute(one)]
    return _by_order(part, repeats)


def _joined(name: str, keyword: str, value: float | str) -> str:
    text = f"{value:g}" if isinstance(value, float) else value or "unset"
    return f"{name}, {keyword} {text}" if name else f"{keyword} {text}"


def _by_order(part: Part, repeats: int) -> list[Part]:
    """Time points that only the order of acquisition tells apart.

    Either each run of slices covers all places once (one volume after the other), or each run stays at one place (one
    slice after the other, each at all times).
    """
    n_places, rest = divmod(len(part.slices), repeats)
    ordered = sorted(part.slices, key=lambda s: (s.file.instance_number or 0, s.frame.index))
    numbers = {(s.file.instance_number, s.frame.index) for s in ordered}
    if rest or n_places < 2 or len(numbers) < len(ordered):
        return [part]
    runs = [ordered[i * n_places : (i + 1) * n_places] for i in range(repeats)]
    if any(_repeats(run) > 1 for run in runs):
        at_one_place = [ordered[i * repeats : (i + 1) * repeats] for i in range(n_places)]
        if any(_repeats(run) < repeats for run in at_one_place):
            return [part]
        runs = [list(run) for run in zip(*at_one_place, strict=True)]
    return [Part(tuple(run), _joined(part.name, _BY_ORDER, float(i))) for i, run in enumerate(runs, start=1)]


def _repeats(slices: Sequence[Slice]) -> int:
    """How often the place that is there most often is there."""
    along = np.sort(distances_mm([s.frame.plane for s in slices if s.frame.plane is not None]))
    place = np.cumsum(np.concatenate([[0], np.diff(along) >= MIN_STEP_MM]))
    return max(Counter(place.tolist()).values())


def _by_station(part: Part) -> list[Part]:
    """Split where the table was moved sideways: runs of slices, each straight in itself."""
    planes = [s.frame.plane for s in part.slices if s.frame.plane is not None]
    order = np.argsort(distances_mm(planes), kind="stable")
    steps = np.diff(sideways_mm(planes)[order], axis=0)
    if len(steps) < 2 * _MIN_STATION - 1:
        return [part]
    usual = np.median(steps, axis=0)
    jumps = np.flatnonzero(np.linalg.norm(steps - usual, axis=1) > SIDEWAYS_TOLERANCE_MM)
    runs = np.split(order, jumps + 1)
    if len(runs) == 1 or min(len(run) for run in runs) < _MIN_STATION:
        return [part]
    return [
        Part(tuple(part.slices[int(i)] for i in run), _joined(part.name, "station", float(n)))
        for n, run in enumerate(runs, start=1)
    ]

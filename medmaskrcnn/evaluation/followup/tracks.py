"""Match lesions between time points.

All time points are compared in the world coordinates of the first. Instances of one class are paired so that the sum of
distances between their centres, relative to what is plausible for their size, is minimal (Hungarian method); a pair
further apart than plausible is rejected. A lesion that is absent at one time point may reappear at a later one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from medmaskrcnn.evaluation.followup.align import Alignment, covers
from medmaskrcnn.structures.case_result import CaseResult, Measurement
from medmaskrcnn.structures.grid import FloatArray

TOLERANCE_MM = 10.0
"""Distance that breathing and rigid registration may leave between two centres of the same small lesion."""


@dataclass(frozen=True, eq=False)
class TimePoint:
    """One examination.

    Attributes:
        label: Its label, ``"t1"`` or a date that the user gave.
        result: Its instances.
        alignment: From its world to that of the first time point.
    """

    label: str
    result: CaseResult
    alignment: Alignment


@dataclass(frozen=True)
class Sighting:
    """A lesion at one time point.

    Attributes:
        id: The instance's id in that result, from 1.
        score: 0..1.
        measurement: Size and position in that scan.
    """

    id: int
    score: float
    measurement: Measurement


@dataclass(frozen=True)
class Track:
    """One lesion through all time points.

    Attributes:
        number: From 1, in the order in which lesions were first seen.
        class_name: Its class.
        sightings: One per time point; ``None`` where it was not found.
        covered: Whether each scan covers its position: a lesion outside a scan cannot be called vanished.
    """

    number: int
    class_name: str
    sightings: tuple[Sighting | None, ...]
    covered: tuple[bool, ...]

    def state(self, t: int) -> str:
        """``"new"``, ``"present"``, ``"vanished"``, ``"absent"`` (not yet or no more) or ``"not covered"``."""
        seen = [i for i, sighting in enumerate(self.sightings) if sighting is not None]
        if self.sightings[t] is not None:
            return "new" if t == seen[0] and t > 0 and any(self.covered[:t]) else "present"
        if not self.covered[t]:
            return "not covered"
        earlier = [i for i in seen if i < t]
        if earlier and not any(self.covered[i] for i in range(earlier[-1] + 1, t)):
            return "vanished"
        return "absent"


@dataclass(eq=False)
class _Open:
    class_name: str
    place: FloatArray  # R, A, S of the first time point's world, where it was last seen
    radius_mm: float
    sightings: list[Sighting | None]


def follow(
    time_points: Sequence[TimePoint],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    class_names: Mapping[str, str] | None = None,
) -> list[Track]:
    """Match the instances of two or more time points.

    Args:
        time_points: In order of time.
        tolerance_mm: How far apart the centres of a small lesion may lie; large ones may move by their radius more.
        class_names: Name to be used for a class where results name it differently; by default each its own.

    Raises:
        ValueError: if there are fewer than two, or a result has no millimetres.
    """
    if len(time_points) < 2:
        raise ValueError(f"following needs two time points or more, got {len(time_points)}")
    tracks: list[_Open] = []
    for t, point in enumerate(time_points):
        seen = _objects(point, class_names or {})
        pairs = _pairs(tracks, seen, tolerance_mm)
        for k, track in enumerate(tracks):
            here = seen[pairs[k]] if k in pairs else None
            track.sightings.append(None if here is None else here.sightings[0])
            if here is not None:
                track.place, track.radius_mm = here.place, here.radius_mm
        taken = set(pairs.values())
        for j, one in enumerate(seen):
            if j not in taken:
                tracks.append(_Open(one.class_name, one.place, one.radius_mm, [*[None] * t, one.sightings[0]]))
    return [
        Track(number, track.class_name, tuple(track.sightings), _covered(track, time_points))
        for number, track in enumerate(tracks, start=1)
    ]


def _objects(point: TimePoint, class_names: Mapping[str, str]) -> list[_Open]:
    found, kept = point.result.candidates, point.result.kept
    if not found.grid.spacing_known:
        raise ValueError(f"time point {point.label} is measured in pixels: sizes cannot be compared")
    objects = []
    for number, i in enumerate(kept, start=1):
        m = point.result.measurements[i]
        if m.centroid_ras is None:
            continue
        place = point.alignment.to_fixed(np.asarray(m.centroid_ras))
        radius = float((3 * m.volume_unit3 / (4 * np.pi)) ** (1 / 3))
        sighting = Sighting(number, float(found.scores[i]), m)
        own = found.class_names[found.labels[i]]
        objects.append(_Open(class_names.get(own, own), place, radius, [sighting]))
    return objects


def _pairs(tracks: Sequence[_Open], seen: Sequence[_Open], tolerance_mm: float) -> dict[int, int]:
    """Track to object; each at most once."""
    if not tracks or not seen:
        return {}
    cost = np.ones((len(tracks), len(seen)))
    for k, track in enumerate(tracks):
        for j, one in enumerate(seen):
            if one.class_name == track.class_name:
                apart = float(np.linalg.norm(one.place - track.place))
                cost[k, j] = min(1.0, apart / (tolerance_mm + max(one.radius_mm, track.radius_mm)))
    rows, columns = linear_sum_assignment(cost)
    return {int(k): int(j) for k, j in zip(rows, columns, strict=True) if cost[k, j] < 1}


def _covered(track: _Open, time_points: Sequence[TimePoint]) -> tuple[bool, ...]:
    return tuple(
        sighting is not None or covers(point.result.candidates.grid, point.alignment.to_moving(track.place))
        for sighting, point in zip(track.sightings, time_points, strict=True)
    )

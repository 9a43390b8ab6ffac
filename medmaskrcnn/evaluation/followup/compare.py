"""START READING HERE: compare results of one patient at several time points.

load results -> align each scan with the first -> match instances -> changes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.evaluation.followup.align import SAME_FRAME, Alignment, align_rigidly
from medmaskrcnn.evaluation.followup.tracks import TOLERANCE_MM, TimePoint, Track, follow
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.class_names import one_spelling, same_name
from medmaskrcnn.structures.volume import Volume


@dataclass(frozen=True, eq=False)
class Examination:
    """One time point before alignment.

    Attributes:
        label: Label of the time point.
        result: Its instances.
        scan: Reads its scan; called only if scans must be registered.
    """

    label: str
    result: CaseResult
    scan: Callable[[], Volume]


def compare(
    examinations: Sequence[Examination],
    *,
    classes: Sequence[str] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    always_register: bool = False,
    rename: Mapping[str, str] | None = None,
) -> tuple[list[TimePoint], list[Track]]:
    """Align the time points of one patient and match the lesions.

    Args:
        examinations: Two or more, in order of time.
        classes: Classes to follow, in any spelling; all by default.
        tolerance_mm: See :func:`medmaskrcnn.evaluation.followup.tracks.follow`.
        always_register: Also register scans that share a frame of reference (if the patient moved in between).
        rename: Classes that results name differently, ``{"lesion": "tumour"}``; other spellings of one name (``Tumor``)
            are recognised without.

    Raises:
        ValueError: if there are fewer than two, a class is unknown, or sizes are in pixels.
        ReadError: if a scan that is needed cannot be read.
    """
    if len(examinations) < 2:
        raise ValueError(f"following needs two time points or more, got {len(examinations)}")
    known = tuple(dict.fromkeys(name for one in examinations for name in one.result.candidates.class_names))
    names = one_spelling(known, rename)
    wanted = {names[match] for asked in classes or () if (match := same_name(asked, (*known, *names)))}
    if unknown := sorted(asked for asked in classes or () if same_name(asked, (*known, *names)) is None):
        raise ValueError(f"no result knows a class {', '.join(unknown)}; the classes are: {', '.join(sorted(known))}")
    first = examinations[0]
    points = [TimePoint(first.label, first.result, SAME_FRAME)]
    fixed: Volume | None = None
    for one in examinations[1:]:
        if _share_frame(first.result, one.result) and not always_register:
            points.append(TimePoint(one.label, one.result, SAME_FRAME))
            continue
        fixed = fixed or _read(first)
        points.append(TimePoint(one.label, one.result, _aligned(_read(one), fixed, one.label)))
    tracks = follow(points, tolerance_mm=tolerance_mm, class_names=names)
    return points, [track for track in tracks if classes is None or track.class_name in wanted]


def _share_frame(first: CaseResult, other: CaseResult) -> bool:
    frame = first.record.source.get("frame_of_reference_uid")
    return frame is not None and frame == other.record.source.get("frame_of_reference_uid")


def _read(one: Examination) -> Volume:
    volume = one.scan()
    if volume.grid != one.result.candidates.grid:
        raise ReadError(f"the scan of time point {one.label} is not the one that its result was made from")
    return volume


def _aligned(moving: Volume, fixed: Volume, label: str) -> Alignment:
    try:
        return align_rigidly(moving, fixed)
    except (RuntimeError, ValueError) as error:  # ITK's errors are RuntimeErrors
        reason = str(error).strip().splitlines()[-1]
        raise ReadError(f"time point {label} cannot be registered with the first: {reason}") from error


def labels_of(places: Sequence[Path], given: Sequence[str]) -> list[str]:
    """Labels of the time points: those the user gave, else ``t1``, ``t2``, ...

    Raises:
        ValueError: if the numbers of labels and places differ, or a label occurs twice.
    """
    labels = list(given) or [f"t{n}" for n in range(1, len(places) + 1)]
    if len(labels) != len(places) or len(set(labels)) != len(labels):
        raise ValueError(f"{len(places)} time points need as many different labels, got {labels}")
    return labels

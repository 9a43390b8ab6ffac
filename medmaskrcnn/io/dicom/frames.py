"""One header, its frames: where each lies, how its values are scaled, what tells it from others at its place.

Classic objects (CT, MR, PET Image Storage) hold one frame and say everything at the top level. Enhanced
multi-frame objects say it per frame or once for all, in functional groups (DICOM PS3.3, C.7.6.16). Both become the
same list of :class:`Frame` here, so nothing downstream knows the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import Plane, make_plane

TIME_KEYWORDS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "DiffusionGradientOrientation",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "InversionTime",
    "FlipAngle",
    "AcquisitionNumber",
    "TemporalPositionTimeOffset",
    "AcquisitionTime",
    "ContentTime",
    "ConvolutionKernel",
    "KVP",
    "ComplexImageComponent",
    "FrameType",
    "ImageType",
)
"""Attributes that tell apart slices at the same place (times, echoes, b-values), the most telling first."""

FRAME_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "StackID",
    *TIME_KEYWORDS,
)
"""Everything :func:`frames_of` looks at, for reading headers with ``specific_tags``."""


class Header(Protocol):
    """A header by keyword: a pydicom dataset, or what was read faster."""

    def get(self, keyword: str, default: Any = None, /) -> Any:
        """The value of an element, or the default."""


@dataclass(frozen=True)
class Frame:
    """One 2D image inside a DICOM object.

    Attributes:
        index: Its number in the object, from 0.
        plane: Its place in the patient; ``None`` where the object does not tell (secondary capture, ultrasound).
        slope, intercept: Stored value times slope plus intercept is the real-world value (0028,1053), (0028,1052).
        window: (centre, width) in real-world values, or ``None``.
        thickness_mm: Slice Thickness (0018,0050), or ``None``.
        between_mm: Spacing Between Slices (0018,0088), or ``None``.
        times: Values of :data:`TIME_KEYWORDS` that the object has, as text or number, by keyword.
        stack: Stack ID (0020,9056), or "": frames of one stack are one volume.
    """

    index: int
    plane: Plane | None
    slope: float
    intercept: float
    window: tuple[float, float] | None
    thickness_mm: float | None
    between_mm: float | None
    times: dict[str, float | str]
    stack: str = ""


def frames_of(header: Header, n_frames: int) -> list[Frame]:
    """The frames of a header read with at least :data:`FRAME_TAGS`.

    Raises:
        ReadError: if a frame's geometry is there but wrong.
        ValueError: if a number is malformed, or functional groups do not match the number of frames.
    """
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [_frame(i, [header]) for i in range(n_frames)] if n_frames == 1 else _unplaced(header, n_frames)
    if len(per_frame) != n_frames:
        raise ValueError(f"{n_frames} frames announced, but functional groups of {len(per_frame)}")
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    return [
        _frame(i, [*_groups(group), *[g for s in shared for g in _groups(s)], header])
        for i, group in enumerate(per_frame)
    ]


def _unplaced(header: Header, n_frames: int) -> list[Frame]:
    """Frames of an old multi-frame object: one scaling for all, no place of its own for any (C.7.6.6)."""
    only = _frame(0, [header])
    return [replace(only, index=i, plane=None, times={}) for i in range(n_frames)]


def _groups(functional_groups: Dataset) -> Iterator[Dataset]:
    """The item of each functional group macro, then what is nested in it (gradient directions); empty ones are not."""
    items = [element.value[0] for element in functional_groups if element.VR == "SQ" and element.value]
    yield from items
    for item in items:
        yield from (element.value[0] for element in item if element.VR == "SQ" and element.value)


def _frame(index: int, places: Sequence[Header]) -> Frame:
    """A frame from the datasets that may describe it, the most specific first."""
    position, orientation = _find(places, "ImagePositionPatient"), _find(places, "ImageOrientationPatient")
    spacing = _find(places, "PixelSpacing")
    placed = bool(position) and bool(orientation) and bool(spacing)
    return Frame(
        index=index,
        plane=make_plane(position, orientation, spacing) if placed else None,
        slope=_slope(places),
        intercept=_finite(places, "RescaleIntercept", 0.0),
        window=_window(places),
        thickness_mm=_number(places, "SliceThickness", None),
        between_mm=_number(places, "SpacingBetweenSlices", None),
        times={k: v for k in TIME_KEYWORDS if (v := _time_value(_find(places, k))) is not None},
        stack=str(_find(places, "StackID") or ""),
    )


def _find(places: Sequence[Header], keyword: str) -> Any:
    for place in places:
        value = place.get(keyword)
        if value is not None and value != "":
            return value
    return None


def _number(places: Sequence[Header], keyword: str, default: Any) -> Any:
    value = _find(places, keyword)
    return default if value is None else float(value)


def _finite(places: Sequence[Header], keyword: str, default: float) -> float:
    value = float(_number(places, keyword, default))
    if not math.isfinite(value):
        raise ReadError(f"{keyword} must be a finite number, got {value}")
    return value


def _slope(places: Sequence[Header]) -> float:
    """Rescale Slope; zero would turn every voxel into the intercept."""
    slope = _finite(places, "RescaleSlope", 1.0)
    if slope == 0:
        raise ReadError("RescaleSlope is 0, so the image has no values")
    return slope


def _window(places: Sequence[Header]) -> tuple[float, float] | None:
    """The first of possibly several windows (0028,1050), (0028,1051)."""
    centre, width = (_first(_find(places, k)) for k in ("WindowCenter", "WindowWidth"))
    return None if centre is None or width is None or float(width) <= 0 else (float(centre), float(width))


def _first(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return next(iter(value), None) if hasattr(value, "__iter__") else value


def _time_value(value: Any) -> float | str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    return str(value) if isinstance(value, str) else "\\".join(str(v) for v in value)

"""The frames of a DICOM object: their planes, rescaling, and what distinguishes frames at the same position.

Classic objects (CT, MR, PET Image Storage) have one frame and all attributes at the top level. Enhanced multi-frame
objects have them per frame or shared, in functional groups (DICOM PS3.3, C.7.6.16). Both become the same list of
:class:`Frame` here, so later steps need not distinguish them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom import scale_2d
from medmaskrcnn.io.dicom.header import DIMENSION_KEYWORDS, DicomHeader, attributes_of, make_header, read_attributes
from medmaskrcnn.io.dicom.nuclear import Attributes, reconstructed_planes
from medmaskrcnn.io.dicom.numbers import number, numbers
from medmaskrcnn.io.dicom.scale_2d import Scale, scale_of
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.structures.grid import FloatArray

Triple = tuple[float, float, float]
_PlaneFields = tuple[Triple, Triple, Triple, tuple[float, float]]
_NO_PLANE: _PlaneFields = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0))

_UNIT_TOLERANCE = 0.01
_MANY_FRAMES = 1000
"""How far directions written with few decimals may deviate from perpendicular unit vectors."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One 2D image inside a DICOM object, and the plane in which it lies.

    Attributes:
        header: The header of the object.
        index: Its number in the object, from 0.
        has_plane: False if the object gives no position (secondary capture, ultrasound): then the plane is arbitrary
            and its spacing has no meaning.
        position_lps_mm: Centre of the first pixel, Image Position (Patient) (0020,0032), in DICOM's axes L, P, S.
        row_direction_lps: Unit vector along which the column index (W) counts up: Image Orientation (Patient)
            (0020,0037), values 1 to 3.
        column_direction_lps: Unit vector along which the row index (H) counts up: values 4 to 6.
        spacing_mm: Distance between rows (H), then between columns (W): Pixel Spacing (0028,0030).
        slope, intercept: Stored value times slope plus intercept is the real-world value (0028,1053), (0028,1052).
        window: (centre, width) in real-world values, or ``None``.
        slice_thickness_mm: Slice Thickness (0018,0050), or ``None``.
        spacing_between_slices_mm: Spacing Between Slices (0018,0088), or ``None``.
        dimensions: Values of :data:`~medmaskrcnn.io.dicom.header.DIMENSION_KEYWORDS` that the object has, as text or
            number, by keyword.
        stack_id: Stack ID (0020,9056), or "": frames of one stack are one volume.
        scale: The size of its pixels, if it has no plane.
        tile: Row and column of its first pixel in the whole picture, from 0, if it is a tile of one.
    """

    header: DicomHeader
    index: int
    has_plane: bool
    position_lps_mm: Triple
    row_direction_lps: Triple
    column_direction_lps: Triple
    spacing_mm: tuple[float, float]
    slope: float
    intercept: float
    window: tuple[float, float] | None
    slice_thickness_mm: float | None
    spacing_between_slices_mm: float | None
    dimensions: dict[str, float | str]
    stack_id: str
    scale: Scale | None = None
    tile: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Its name in error messages: ``"slice 12 (IM012.dcm)"``, or ``"frame 3 (enhanced.dcm)"``."""
        if self.header.n_frames > 1:
            return f"frame {self.index + 1} ({self.header.path.name})"
        number = "" if self.header.instance_number is None else f" {self.header.instance_number}"
        return f"slice{number} ({self.header.path.name})"

    @property
    def normal_lps(self) -> FloatArray:
        """Unit vector ``(3,)`` in LPS along which slices are sorted: row direction x column direction."""
        normal = np.cross(self.row_direction_lps, self.column_direction_lps)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def read_frames(path: Path) -> tuple[DicomHeader, list[Frame]]:
    """Header and frames of a DICOM file; no frames if it is not an image.

    Raises:
        ReadError: if it is not DICOM, its header is cut short, or it is an image with invalid geometry.
    """
    with convert_read_errors(path, "DICOM"):
        header, attributes = read_attributes(path)
        if header.non_image:
            return header, []
        if header.is_truncated and header.n_frames > _MANY_FRAMES:  # before anything is made for each of them
            raise ReadError(
                f"{path} is cut short: the header claims {header.n_frames} frames, which its pixel data cannot hold. "
                "Copy or export it again"
            )
        try:
            return header, make_frames(header, attributes)
        except ReadError as error:
            raise ReadError(f"{path}: {error}. Export the scan again") from error


def frames_of_dataset(path: Path, dataset: FileDataset) -> list[Frame]:
    """The frames of any object read by pydicom; errors as :func:`make_frames`."""
    attributes = attributes_of(dataset)
    return make_frames(make_header(path, attributes), attributes)


def make_frames(header: DicomHeader, attributes: Attributes) -> list[Frame]:
    """The frames of an object.

    Args:
        header: Its header.
        attributes: The attributes from which the header was made.

    Raises:
        ReadError: if a frame's geometry is given but invalid.
        ValueError: if a number is malformed, or functional groups do not match the number of frames.
    """
    per_frame = attributes.get("PerFrameFunctionalGroupsSequence")
    shared = [g for groups in attributes.get("SharedFunctionalGroupsSequence") or [] for g in _groups(groups)]
    if not per_frame:
        first = _frame(header, 0, [*shared, attributes])
        if header.n_frames == 1:
            return [first]
        if (planes := reconstructed_planes(attributes, header.n_frames)) is not None:
            return [_frame(header, i, [plane, attributes]) for i, plane in enumerate(planes)]
        # A classic multi-frame object has one rescaling for all frames, and no plane for any of them (C.7.6.6).
        flat = replace(first, has_plane=False, dimensions={}, scale=_scale([*shared, attributes]))
        return [replace(flat, index=i, tile=_tile(header, i, [attributes])) for i in range(header.n_frames)]
    if len(per_frame) != header.n_frames:
        raise ValueError(f"{header.n_frames} frames announced, but functional groups of {len(per_frame)}")
    return [_frame(header, i, [*_groups(group), *shared, attributes]) for i, group in enumerate(per_frame)]


def _groups(functional_groups: Dataset) -> Iterator[Dataset]:
    """The item of each non-empty functional group macro, then those nested in it (gradient directions)."""
    items = [element.value[0] for element in functional_groups if element.VR == "SQ" and element.value]
    yield from items
    for item in items:
        yield from (element.value[0] for element in item if element.VR == "SQ" and element.value)


def _frame(header: DicomHeader, index: int, sources: Sequence[Attributes]) -> Frame:
    """A frame from the datasets that may describe it, the most specific first."""
    position, orientation = _find(sources, "ImagePositionPatient"), _find(sources, "ImageOrientationPatient")
    spacing = _find(sources, "PixelSpacing")
    position, orientation, spacing = numbers(position, 3), numbers(orientation, 6), numbers(spacing, 2)
    has_plane = bool(position) and bool(orientation) and bool(spacing)
    plane = _image_plane(position, orientation, spacing) if has_plane else _NO_PLANE
    return Frame(
        header,
        index,
        has_plane,
        *plane,
        slope=_slope(sources),
        intercept=_finite(sources, "RescaleIntercept", 0.0),
        window=_window(sources),
        slice_thickness_mm=_number(sources, "SliceThickness", None),
        spacing_between_slices_mm=_number(sources, "SpacingBetweenSlices", None),
        dimensions={k: v for k in DIMENSION_KEYWORDS if (v := _dimension(_find(sources, k))) is not None},
        stack_id=str(_find(sources, "StackID") or ""),
        scale=None if has_plane else _scale(sources),
        tile=_tile(header, index, sources),
    )


def _scale(sources: Sequence[Attributes]) -> Scale:
    """How large the pixels of an image without a plane are."""
    return scale_of({k: _find(sources, k) for k in ("PixelSpacing", *scale_2d.KEYWORDS)})


def _tile(header: DicomHeader, index: int, sources: Sequence[Attributes]) -> tuple[int, int] | None:
    """Place of a tile: as its frame says, or row by row if it says nothing (TILED_FULL, PS3.3 C.7.6.17.3)."""
    if header.matrix is None:
        return None
    row, column = (_find(sources, f"{axis}PositionInTotalImagePixelMatrix") for axis in ("Row", "Column"))
    if row is not None and column is not None:
        return int(row) - 1, int(column) - 1
    down, across = divmod(index, -(-header.matrix[1] // header.columns))
    return down * header.rows, across * header.columns


def _image_plane(position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]) -> _PlaneFields:
    """The fields of a frame's plane from the values of IPP (3), IOP (6) and Pixel Spacing (2: rows, columns).

    Directions are scaled to unit length, since files write few decimals.

    Raises:
        ReadError: if a value is missing or not finite, the directions are not perpendicular unit vectors, or
            the spacing is not positive.
    """
    values = [np.asarray(v, dtype=np.float64) for v in (position, orientation, spacing)]
    for name, value, n in zip(("position", "orientation", "pixel spacing"), values, (3, 6, 2), strict=True):
        if value.shape != (n,) or not np.isfinite(value).all():
            raise ReadError(f"the image's {name} must be {n} finite numbers, got {value.tolist()}")
    row, column = values[1][:3], values[1][3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > _UNIT_TOLERANCE or abs(row @ column) > _UNIT_TOLERANCE:
        raise ReadError(f"the image's orientation must be two perpendicular unit vectors, got {values[1].tolist()}")
    if values[2].min() <= 0:
        raise ReadError(f"the image's pixel spacing must be positive, got {values[2].tolist()} mm")
    return _triple(values[0]), _triple(row / lengths[0]), _triple(column / lengths[1]), _pair(values[2])


def _find(sources: Sequence[Attributes], keyword: str) -> Any:
    for source in sources:
        value = source.get(keyword)
        if value is not None and value != "":
            return value
    return None


def _number(sources: Sequence[Attributes], keyword: str, default: Any) -> Any:
    value = number(_find(sources, keyword))
    return default if value is None else value


def _finite(sources: Sequence[Attributes], keyword: str, default: float) -> float:
    value = float(_number(sources, keyword, default))
    if not math.isfinite(value):
        raise ReadError(f"{keyword} must be a finite number, got {value}")
    return value


def _slope(sources: Sequence[Attributes]) -> float:
    """Rescale Slope; zero would turn every voxel into the intercept."""
    slope = _finite(sources, "RescaleSlope", 1.0)
    if slope == 0 and str(_find(sources, "Modality")) != "PT":  # a PET slice without counts
        raise ReadError("RescaleSlope is 0, so the image has no values")
    return slope


def _window(sources: Sequence[Attributes]) -> tuple[float, float] | None:
    """The first window if there are several (0028,1050), (0028,1051)."""
    try:
        centre, width = (number(_find(sources, k)) for k in ("WindowCenter", "WindowWidth"))
    except ValueError:
        return None  # it only says how to show the image
    return None if centre is None or width is None or width <= 0 else (centre, width)


def _dimension(value: Any) -> float | str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    return str(value) if isinstance(value, str) else "\\".join(str(v) for v in value)


def _triple(values: FloatArray) -> Triple:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _pair(values: FloatArray) -> tuple[float, float]:
    a, b = (float(v) for v in values)
    return a, b

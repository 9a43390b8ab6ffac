"""From DICOM planes to one affine: sorting, spacing and the checks that no geometry is invented.

A plane is one frame's place in the patient: Image Position (Patient) (0020,0032) is the centre of its first
pixel, Image Orientation (Patient) (0020,0037) the directions in which columns and rows count up, Pixel Spacing
(0028,0030) their distances (DICOM PS3.3, C.7.6.2.1.1). A stack of planes becomes a volume whose D axis is the
step from slice to slice *as positions give it*: Slice Thickness and Spacing Between Slices are not trusted.
Reading uses this to build a scan's affine, writing to place frames of what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray

MIN_STEP_MM = 1e-3
"""Two slices closer than this lie at the same place."""

STEP_TOLERANCE = 0.02
"""Relative unevenness of steps that rounding of positions explains; beyond it a stack is refused."""

STEP_TOLERANCE_MM = 0.02
"""The same in mm: positions are often written with two decimals, so each of two may be off by 0.005 mm."""

ROUNDED_MM = 0.055
"""So far positions with one decimal lie off the even ones that were meant; more explains no unevenness."""

ROUNDED_SHARE = 0.15
"""... and no more than this share of a step."""

SIDEWAYS_TOLERANCE_MM = 0.1
"""How far a slice may lie off the straight line through all of them, across the step."""

TILT_TOLERANCE_DEG = 0.05
"""Angle between step and normal from which the shear is worth telling the user."""

_UNIT_TOLERANCE = 0.01


class IrregularError(ReadError):
    """Slices are doubled, missing or unevenly spaced; they could be resampled to even ones."""


@dataclass(frozen=True)
class Plane:
    """Where one frame lies, in DICOM's own axes L, P, S.

    Attributes:
        position_lps_mm: Centre of the first pixel, Image Position (Patient).
        column_direction_lps: Unit vector along which the row index (H) counts up: IOP values 4 to 6.
        row_direction_lps: Unit vector along which the column index (W) counts up: IOP values 1 to 3.
        spacing_mm: Distance between rows (H), then between columns (W): the order of Pixel Spacing.
    """

    position_lps_mm: tuple[float, float, float]
    row_direction_lps: tuple[float, float, float]
    column_direction_lps: tuple[float, float, float]
    spacing_mm: tuple[float, float]

    @property
    def normal_lps(self) -> FloatArray:
        """Unit vector ``(3,)`` in LPS along which slices are sorted: row direction x column direction."""
        normal = np.cross(self.row_direction_lps, self.column_direction_lps)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


@dataclass(frozen=True)
class Stack:
    """Planes in order, as one volume.

    Attributes:
        order: Indices into the given planes, sorted along the normal.
        affine_vox_to_ras: ``(4, 4)``, columns D, H, W; voxel index to the voxel's centre in R, A, S mm.
        notes: What a user should know (tilt, slight unevenness), one sentence each.
    """

    order: tuple[int, ...]
    affine_vox_to_ras: FloatArray
    notes: tuple[str, ...] = ()


def make_plane(position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]) -> Plane:
    """A plane from the values of IPP (3), IOP (6) and Pixel Spacing (2: rows, columns).

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
    return Plane(_triple(values[0]), _triple(row / lengths[0]), _triple(column / lengths[1]), _pair(values[2]))


def same_orientation(a: Plane, b: Plane) -> bool:
    """True if two planes are parallel, turned alike and have the same pixel spacing."""
    pairs = (
        *zip(a.row_direction_lps, b.row_direction_lps, strict=True),
        *zip(a.column_direction_lps, b.column_direction_lps, strict=True),
    )
    spacings = zip(a.spacing_mm, b.spacing_mm, strict=True)
    return all(abs(x - y) <= 1e-3 for x, y in pairs) and all(abs(x - y) <= 1e-4 * y for x, y in spacings)


def distances_mm(planes: Sequence[Plane]) -> FloatArray:
    """``(N,)`` positions along the first plane's normal, in mm."""
    positions = np.array([p.position_lps_mm for p in planes])
    return np.asarray(positions @ planes[0].normal_lps)


def stack_planes(planes: Sequence[Plane], *, names: Sequence[str], thickness_mm: float | None = None) -> Stack:
    """Sort planes along their normal and join them into one volume.

    The order is right-handed: slices follow row direction x column direction. A gantry tilt, where each slice is
    shifted sideways by the same amount, stays in the affine as shear; that is exact.

    Args:
        planes: At least one, all alike by :func:`same_orientation`.
        names: What to call each plane in errors, e.g. ``"slice 12 (IM012.dcm)"``.
        thickness_mm: Extent of a single plane across itself; used for one plane only.

    Raises:
        IrregularError: if slices are doubled, missing or unevenly spaced, with their names and positions.
        ReadError: if slices are irregularly shifted; or for one plane without thickness.
    """
    order = tuple(int(i) for i in np.argsort(distances_mm(planes), kind="stable"))
    first = planes[order[0]]
    if len(planes) == 1:
        if thickness_mm is None or not thickness_mm > 0:
            raise ReadError(f"{names[0]} is a single slice of unknown thickness")
        return Stack(order, _affine(first, first.normal_lps * thickness_mm))
    positions = np.array([planes[i].position_lps_mm for i in order])
    sorted_names = [names[i] for i in order]
    along = positions @ first.normal_lps
    notes = _check_steps(along, sorted_names)
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    _check_straight(positions, step, first.normal_lps, sorted_names)
    tilt = _angle_deg(step, first.normal_lps)
    if tilt > TILT_TOLERANCE_DEG:
        notes.append(
            f"The slices are shifted sideways (gantry tilt of {tilt:.2f} degrees); the affine keeps it as shear."
        )
    return Stack(order, _affine(first, step), tuple(notes))


def stack_affine(first: Plane, last: Plane, n_steps: int) -> FloatArray:
    """``(4, 4)`` affine of ``n_steps + 1`` even slices from one plane to another, columns D, H, W, into R, A, S mm."""
    return _affine(first, (np.array(last.position_lps_mm) - first.position_lps_mm) / n_steps)


def sideways_mm(planes: Sequence[Plane]) -> FloatArray:
    """``(N, 3)`` in LPS, mm: how far each plane lies from the normal through the first one."""
    positions = np.array([p.position_lps_mm for p in planes]) - planes[0].position_lps_mm
    normal = planes[0].normal_lps
    return np.asarray(positions - np.outer(positions @ normal, normal))


def refuse_crooked(planes: Sequence[Plane], names: Sequence[str]) -> None:
    """As :func:`stack_planes` does, but for planes without an even step, in order along their normal.

    Raises:
        ReadError: if they do not lie on a straight line.
    """
    along = distances_mm(planes)
    share = (along - along[0]) / (along[-1] - along[0])
    sideways = sideways_mm(planes)
    off = np.linalg.norm(sideways - np.outer(share, sideways[-1]), axis=1)
    worst = int(off.argmax())
    if off[worst] > SIDEWAYS_TOLERANCE_MM:
        raise ReadError(
            f"slices do not lie on a straight line: {names[worst]} is {off[worst]:.2f} mm off. "
            f"Such a scan has no regular grid"
        )


def tilt_deg(affine_vox_to_ras: FloatArray) -> float:
    """Angle between the step from slice to slice and the slices' normal, in degrees: the gantry's tilt.

    ``affine_vox_to_ras`` is ``(4, 4)``, voxel index to mm.
    """
    step, column, row = affine_vox_to_ras[:3, :3].T
    normal = np.cross(row, column)
    angle = _angle_deg(step, normal)
    return min(angle, 180.0 - angle)


def _check_steps(along_mm: FloatArray, names: Sequence[str]) -> list[str]:
    """Refuse doubled, missing and uneven slices; tell of unevenness that rounding explains."""
    steps = np.diff(along_mm)
    for i in np.flatnonzero(steps < MIN_STEP_MM).tolist():
        raise IrregularError(
            f"doubled slice: {names[i]} and {names[i + 1]} lie at the same position {along_mm[i]:.2f} mm. "
            f"Remove one, or separate the series they belong to"
        )
    usual = float(np.median(steps))
    tolerance = max(STEP_TOLERANCE * usual, STEP_TOLERANCE_MM)
    odd = np.flatnonzero(np.abs(steps - usual) > tolerance)
    even = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    off = float(np.abs(along_mm - even).max())
    if len(odd) and off > min(2 * ROUNDED_MM, ROUNDED_SHARE * usual):
        raise IrregularError(_uneven_message(along_mm, steps, usual, odd, names))
    spread = float(np.abs(steps - steps.mean()).max())
    if spread > 1e-3:
        return [f"Slice steps vary by up to {spread:.3f} mm around {steps.mean():.3f} mm; they are taken as even."]
    return []


def _uneven_message(
    along_mm: FloatArray, steps: FloatArray, usual: float, odd: np.ndarray, names: Sequence[str]
) -> str:
    gaps = "; ".join(
        f"{steps[i]:.2f} mm between {names[i]} at {along_mm[i]:.2f} mm and {names[i + 1]} at {along_mm[i + 1]:.2f} mm"
        for i in odd[:5]
    )
    more = f"; and {len(odd) - 5} more" if len(odd) > 5 else ""
    multiples = steps[odd] / usual
    whole = np.round(multiples)
    if (whole >= 2).all() and np.allclose(multiples, whole, atol=0.05):
        missing = int((whole - 1).sum())
        noun = "slice is" if missing == 1 else "slices are"
        return f"{missing} {noun} missing (usual step {usual:.2f} mm): {gaps}{more}. Export the series again, complete"
    return f"slices are unevenly spaced (usual step {usual:.2f} mm): {gaps}{more}. Such a scan has no regular grid"


def _check_straight(positions: FloatArray, step: FloatArray, normal: FloatArray, names: Sequence[str]) -> None:
    offset = positions - (positions[0] + np.arange(len(positions))[:, None] * step)
    sideways = np.linalg.norm(offset - np.outer(offset @ normal, normal), axis=1)
    worst = int(sideways.argmax())
    if sideways[worst] > SIDEWAYS_TOLERANCE_MM:
        raise ReadError(
            f"slices do not lie on a straight line: {names[worst]} is {sideways[worst]:.2f} mm off. "
            f"Such a scan has no regular grid"
        )


def _affine(first: Plane, step_lps_mm: FloatArray) -> FloatArray:
    """Columns D, H, W and origin in LPS, turned into RAS."""
    affine = np.eye(4)
    affine[:3, 0] = step_lps_mm
    affine[:3, 1] = np.multiply(first.column_direction_lps, first.spacing_mm[0])
    affine[:3, 2] = np.multiply(first.row_direction_lps, first.spacing_mm[1])
    affine[:3, 3] = first.position_lps_mm
    return np.asarray(LPS_FROM_RAS @ affine)


def _angle_deg(a: FloatArray, b: FloatArray) -> float:
    sine = np.linalg.norm(np.cross(a, b))
    return float(np.degrees(np.arctan2(sine, a @ b)))


def _triple(values: FloatArray) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _pair(values: FloatArray) -> tuple[float, float]:
    a, b = (float(v) for v in values)
    return a, b

"""From the planes of DICOM frames to one affine: sorting, spacing, and checks that no geometry is invented.

A frame's plane is its position in the patient: Image Position (Patient) (0020,0032) is the centre of its first
pixel, Image Orientation (Patient) (0020,0037) the directions in which columns and rows count up, Pixel Spacing
(0028,0030) their distances (DICOM PS3.3, C.7.6.2.1.1). A stack of frames becomes a volume whose D axis is the step
from slice to slice *according to the positions*: Slice Thickness and Spacing Between Slices are not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray

MIN_STEP_MM = 1e-3
"""Two slices closer than this are at the same position."""

STEP_TOLERANCE = 0.02
"""Relative unevenness of steps that rounding of positions can explain; beyond it a stack is refused."""

STEP_TOLERANCE_MM = 0.02
"""The same in mm: positions are often written with two decimals, so each of two may be off by 0.005 mm."""

ROUNDED_MM = 0.055
"""Largest deviation of positions rounded to one decimal from even ones; rounding explains no more than this."""

ROUNDED_SHARE = 0.15
"""... and no more than this fraction of a step."""

SIDEWAYS_TOLERANCE_MM = 0.1
"""How far a slice may deviate sideways from the straight line through all slices."""

TILT_TOLERANCE_DEG = 0.05
"""Angle between step and normal above which the user is informed of the shear."""


class IrregularError(ReadError):
    """Slices are duplicated, missing or unevenly spaced; they could be resampled to even spacing."""


DRIFT = 2e-3
"""Difference of direction cosines, and relative difference of pixel spacings, that is rounding in the fourth digit."""

_TOLD_DRIFT = 2e-4
_LARGEST_DRIFT = 5e-3


class DoubledError(IrregularError):
    """Two slices lie at the same position."""


def same_orientation(a: Frame, b: Frame) -> bool:
    """True if two frames have parallel planes with the same in-plane rotation and pixel spacing."""
    return _drift(a, b) <= DRIFT


def _drift(a: Frame, b: Frame) -> float:
    """Largest difference of two frames' direction cosines, and relative difference of their pixel spacings."""
    pairs = (
        *zip(a.row_direction_lps, b.row_direction_lps, strict=True),
        *zip(a.column_direction_lps, b.column_direction_lps, strict=True),
    )
    spacings = zip(a.spacing_mm, b.spacing_mm, strict=True)
    return max(*(abs(x - y) for x, y in pairs), *(abs(x - y) / y for x, y in spacings))


def check_drift(frames: Sequence[Frame]) -> list[str]:
    """Check that frames are parallel and equally large, as far as their decimals go; the first one's values are used.

    Returns:
        A note for the user if they differ more than by their last digit.

    Raises:
        ReadError: if directions or pixel spacings change from slice to slice by more than rounding.
    """
    drift = max(_drift(frame, frames[0]) for frame in frames)
    if drift > _LARGEST_DRIFT:
        raise ReadError(
            f"directions or pixel spacings of the slices change by up to {drift:.4f} from slice to slice; such a scan "
            f"has no regular grid"
        )
    if drift > _TOLD_DRIFT:
        return [f"Directions or pixel spacings of the slices differ by up to {drift:.4f}; those of one are used."]
    return []


def distances_mm(frames: Sequence[Frame]) -> FloatArray:
    """``(N,)`` positions along the first frame's normal, in mm."""
    positions = np.array([f.position_lps_mm for f in frames])
    return np.asarray(positions @ frames[0].normal_lps)


def order_along_normal(frames: Sequence[Frame]) -> list[int]:
    """Indices into frames, sorted along the first one's normal: row direction x column direction, right-handed."""
    return [int(i) for i in np.argsort(distances_mm(frames), kind="stable")]


def check_regular(frames: Sequence[Frame]) -> list[str]:
    """Check that frames form a volume with an even step.

    A gantry tilt, which shifts each slice sideways by the same amount, is kept exactly, as shear in the affine.

    Args:
        frames: At least two, sorted along their normal, all of the :func:`same_orientation`.

    Returns:
        Notes for the user (tilt, slight unevenness), one sentence each.

    Raises:
        IrregularError: if slices are duplicated, missing or unevenly spaced, with their names and positions.
        ReadError: if slices are irregularly shifted.
    """
    positions = np.array([f.position_lps_mm for f in frames])
    names = [f.name for f in frames]
    normal = frames[0].normal_lps
    notes = _check_steps(positions @ normal, names)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    _refuse_crooked(_across(positions - (positions[0] + np.arange(len(frames))[:, None] * step), normal), names)
    tilt = _angle_deg(step, normal)
    if tilt > TILT_TOLERANCE_DEG:
        notes.append(
            f"The slices are shifted sideways (gantry tilt of {tilt:.2f} degrees); the affine keeps it as shear."
        )
    return notes


def check_straight(frames: Sequence[Frame]) -> None:
    """Check that frames without an even step, sorted along their normal, lie on a straight line.

    Raises:
        ReadError: if they do not.
    """
    along = distances_mm(frames)
    share = (along - along[0]) / (along[-1] - along[0])
    sideways = sideways_mm(frames)
    _refuse_crooked(sideways - np.outer(share, sideways[-1]), [f.name for f in frames])


def sideways_mm(frames: Sequence[Frame]) -> FloatArray:
    """``(N, 3)`` in LPS, mm: how far each frame lies from the normal through the first one."""
    positions = np.array([f.position_lps_mm for f in frames]) - frames[0].position_lps_mm
    return _across(positions, frames[0].normal_lps)


def slice_affine(frame: Frame, step_mm: float) -> FloatArray:
    """``(4, 4)`` affine of slices ``step_mm`` apart along a frame's normal, columns D, H, W, into R, A, S mm."""
    return _affine(frame, frame.normal_lps * step_mm)


def stack_affine(first: Frame, last: Frame, n_steps: int) -> FloatArray:
    """``(4, 4)`` affine of ``n_steps + 1`` even slices from one frame to another, columns D, H, W, into R, A, S mm."""
    return _affine(first, (np.array(last.position_lps_mm) - first.position_lps_mm) / n_steps)


def tilt_deg(affine_vox_to_ras: FloatArray) -> float:
    """Gantry tilt: the angle between the step from slice to slice and the slices' normal, in degrees.

    ``affine_vox_to_ras`` is ``(4, 4)``, voxel index to mm.
    """
    step, column, row = affine_vox_to_ras[:3, :3].T
    normal = np.cross(row, column)
    angle = _angle_deg(step, normal)
    return min(angle, 180.0 - angle)


def _check_steps(along_mm: FloatArray, names: Sequence[str]) -> list[str]:
    """Refuse duplicated, missing and uneven slices; return a note on unevenness that rounding explains."""
    steps = np.diff(along_mm)
    for i in np.flatnonzero(steps < MIN_STEP_MM).tolist():
        raise DoubledError(
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


def _across(vectors: FloatArray, normal: FloatArray) -> FloatArray:
    """``(N, 3)`` vectors without their component along a unit normal."""
    return np.asarray(vectors - np.outer(vectors @ normal, normal))


def _refuse_crooked(off_mm: FloatArray, names: Sequence[str]) -> None:
    """Refuse frames if one lies off the line through all; ``off_mm`` ``(N, 3)`` are the deviations in mm."""
    distance = np.linalg.norm(off_mm, axis=1)
    worst = int(distance.argmax())
    if distance[worst] > SIDEWAYS_TOLERANCE_MM:
        raise ReadError(
            f"slices do not lie on a straight line: {names[worst]} is {distance[worst]:.2f} mm off. "
            f"Such a scan has no regular grid"
        )


def _affine(first: Frame, step_lps_mm: FloatArray) -> FloatArray:
    """Affine with columns D, H, W and the origin, converted from LPS to RAS."""
    affine = np.eye(4)
    affine[:3, 0] = step_lps_mm
    affine[:3, 1] = np.multiply(first.column_direction_lps, first.spacing_mm[0])
    affine[:3, 2] = np.multiply(first.row_direction_lps, first.spacing_mm[1])
    affine[:3, 3] = first.position_lps_mm
    return np.asarray(LPS_FROM_RAS @ affine)


def _angle_deg(a: FloatArray, b: FloatArray) -> float:
    sine = np.linalg.norm(np.cross(a, b))
    return float(np.degrees(np.arctan2(sine, a @ b)))

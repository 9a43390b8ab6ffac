"""Formats sizes for display: with their unit, in about three digits."""

from __future__ import annotations

MM3_PER_ML = 1000.0


def volume_text(volume: float, unit: str) -> str:
    """A volume in mL from 1 mL on, else in mm³; pixels where the scan's spacing is unknown.

    Args:
        volume: In mm³, or in pixels.
        unit: Unit of lengths, ``"mm"`` or ``"px"``.

    >>> volume_text(12345, "mm"), volume_text(345, "mm"), volume_text(345, "px")
    ('12.3 mL', '345 mm³', '345 px')
    """
    if unit != "mm":
        return f"{volume:,.0f} {unit}"
    return f"{_digits(volume / MM3_PER_ML)} mL" if volume >= MM3_PER_ML else f"{_digits(volume)} mm³"


def volume_unit(unit: str) -> str:
    """The unit of volumes in tables, ``"mL"`` or ``"px"``, for the unit of lengths, ``"mm"`` or ``"px"``."""
    return "mL" if unit == "mm" else unit


def in_volume_unit(volume: float, unit: str) -> float:
    """A volume (mm³ or pixels) in the unit of :func:`volume_unit`."""
    return volume / MM3_PER_ML if unit == "mm" else volume


def length_text(length: float | None, unit: str) -> str:
    """A length with its unit; ``-`` if there is none."""
    return "-" if length is None else f"{_digits(length)} {unit}"


def diameters_text(longest: float | None, perpendicular: float | None, unit: str) -> str:
    """Longest axial diameter x its perpendicular; empty if there is none."""
    if longest is None or perpendicular is None:
        return ""
    return f"{_digits(longest)} x {_digits(perpendicular)} {unit}"


def intensity_unit(modality: str | None) -> str | None:
    """The unit of a scan's values if its modality defines one: ``"HU"`` for CT."""
    return "HU" if modality == "CT" else None


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"

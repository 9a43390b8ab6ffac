"""Sizes as people read them."""

from __future__ import annotations

import pytest

from medmaskrcnn.report.units import diameters_text, in_volume_unit, length_text, volume_text, volume_unit


@pytest.mark.parametrize(
    ("volume", "unit", "text"),
    [
        (1250.4, "mm", "1.3 mL"),
        (1234567.0, "mm", "1,235 mL"),
        (999.4, "mm", "999 mm³"),
        (1000.0, "mm", "1.0 mL"),
        (0.125, "mm", "0.12 mm³"),
        (5000.0, "px", "5,000 px"),
    ],
)
def test_volume_text(volume: float, unit: str, text: str) -> None:
    assert volume_text(volume, unit) == text


@pytest.mark.parametrize(("unit", "shown"), [("mm", ("mL", 1.25)), ("px", ("px", 1250.0))])
def test_volumes_of_tables(unit: str, shown: tuple[str, float]) -> None:
    assert (volume_unit(unit), in_volume_unit(1250.0, unit)) == shown


def test_lengths() -> None:
    assert length_text(12.34, "mm") == "12.3 mm"
    assert length_text(None, "mm") == "-"
    assert diameters_text(123.4, 5.67, "mm") == "123 x 5.7 mm"
    assert diameters_text(123.4, None, "mm") == ""

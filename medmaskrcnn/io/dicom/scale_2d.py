"""How large the pixels are of an image without a position in the patient: radiograph, mammogram, ultrasound, capture.

Such an image may tell its scale in several ways that mean different things, so the meaning is told with the number:

* Pixel Spacing (0028,0030): the size in the patient, as calibrated (0028,0A02), or without saying so the detector's;
* Imager Pixel Spacing (0018,1164): at the detector, where the patient appears magnified; with the Estimated
  Radiographic Magnification Factor (0018,1114) it gives an estimate of the size in the patient;
* Sequence of Ultrasound Regions (0018,6011): cm in a region of the image;
* Nominal Scanned Pixel Spacing (0018,2010): on the film that was scanned;
* Pixel Aspect Ratio (0028,0034): pixels that are not square, of unknown size.

DICOM PS3.3, C.7.6.3.1.7, C.8.5.5 and 10.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medmaskrcnn.io.dicom.numbers import number, numbers

KEYWORDS = (
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "SequenceOfUltrasoundRegions",
)
"""The attributes that are needed, beside Pixel Spacing."""

_CM, _TWO_D = 3, 1  # Physical Units, Region Spatial Format (C.8.5.5.1)
_SAME = 1e-3  # relative difference of two spacings that were written with few digits


@dataclass(frozen=True)
class Scale:
    """The size of a pixel.

    Attributes:
        pixel_mm: Distance between rows, then between columns, in mm; ``None`` if unknown.
        aspect: Height of a pixel divided by its width, where :attr:`pixel_mm` is unknown.
        note: What the numbers mean, as a sentence for the user.
    """

    pixel_mm: tuple[float, float] | None
    note: str
    aspect: float = 1.0


UNKNOWN = Scale(None, "The file does not tell where the image lies in the patient; measurements are in pixels.")


def scale_of(values: dict[str, Any]) -> Scale:
    """The scale of an image from its attributes by keyword (:data:`KEYWORDS`, PixelSpacing)."""
    found = _pair(values.get("PixelSpacing"))
    at_detector = _pair(values.get("ImagerPixelSpacing"))
    if found is not None:
        return Scale(found, _meaning(values, found, at_detector))
    magnification = _positive(values.get("EstimatedRadiographicMagnificationFactor"))
    if at_detector is not None and magnification is not None:
        estimated = at_detector[0] / magnification, at_detector[1] / magnification
        return Scale(
            estimated,
            f"The scale is an estimate: pixels of {_mm(at_detector)} at the detector, magnified {magnification:g} x.",
        )
    if (regions := values.get("SequenceOfUltrasoundRegions")) and (scale := _of_regions(regions)) is not None:
        return scale
    if at_detector is not None:
        note = f"Pixels measure {_mm(at_detector)} at the detector; in the patient less, by an unknown magnification. "
        return Scale(None, note + "Measurements are in pixels.", at_detector[0] / at_detector[1])
    on_film = _pair(values.get("NominalScannedPixelSpacing"))
    if on_film is not None:
        note = f"Pixels measure {_mm(on_film)} on the film that was scanned; measurements are in pixels."
        return Scale(None, note, on_film[0] / on_film[1])
    aspect = _pair(values.get("PixelAspectRatio"))
    if aspect is not None and abs(aspect[0] / aspect[1] - 1) > _SAME:
        note = f"Pixels are {aspect[0] / aspect[1]:.3g} times as high as wide; measurements are in pixel widths."
        return Scale(None, note, aspect[0] / aspect[1])
    return UNKNOWN


def _meaning(values: dict[str, Any], spacing: tuple[float, float], at_detector: tuple[float, float] | None) -> str:
    calibration = str(values.get("PixelSpacingCalibrationType") or "").strip().upper()
    if calibration in ("GEOMETRY", "FIDUCIAL"):
        return f"The scale was calibrated ({calibration.lower()}): pixels of {_mm(spacing)}."
    if at_detector is not None and np.allclose(spacing, at_detector, rtol=_SAME):
        return f"The scale is the detector's ({_mm(spacing)}): what lies before it appears magnified."
    return f"The scale of {_mm(spacing)} is taken from the header, which does not say how it was found."


def _of_regions(regions: Sequence[Any]) -> Scale | None:
    """The scale of an ultrasound image whose two-dimensional regions agree; ``None`` if none has one in cm."""
    flat = [r for r in regions if int(r.get("RegionSpatialFormat") or 0) == _TWO_D]
    known = [
        (10 * abs(float(r.PhysicalDeltaY)), 10 * abs(float(r.PhysicalDeltaX)))
        for r in flat
        if r.get("PhysicalUnitsXDirection") == r.get("PhysicalUnitsYDirection") == _CM
        and r.get("PhysicalDeltaX")
        and r.get("PhysicalDeltaY")
    ]
    if not known:
        return None
    if len(known) < len(flat) or not np.allclose(known, known[0], rtol=_SAME):
        return Scale(None, "The ultrasound regions of the image have different scales; measurements are in pixels.")
    corners = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    x0, y0, x1, y1 = (flat[0].get(name) for name in corners)
    where = f" (columns {x0} to {x1}, rows {y0} to {y1})" if len(flat) == 1 else ""
    return Scale(known[0], f"The scale of {_mm(known[0])} is that of the ultrasound region{where}.")


def _pair(value: Any) -> tuple[float, float] | None:
    """Two positive numbers, or one that counts for both."""
    found = numbers(value, 2)
    found = found * 2 if len(found) == 1 else found
    if len(found) != 2 or not np.isfinite(found).all() or min(found) <= 0:
        return None
    return found[0], found[1]


def _positive(value: Any) -> float | None:
    found = number(value, 0.0) or 0.0
    return found if np.isfinite(found) and found > 0 else None


def _mm(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4g} x {pair[1]:.4g} mm"

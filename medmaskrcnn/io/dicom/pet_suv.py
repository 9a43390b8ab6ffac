"""Optional conversion of PET to standardised uptake values (SUV by body weight).

SUV = activity concentration x body weight / injected dose, with the dose decayed to the time to which the scanner has
corrected the image (QIBA FDG-PET profile, appendix G; DICOM PS3.3, C.8.9.1 and C.8.9.2). With activity in Bq/mL and
1 g of tissue per mL the unit is g/mL. If the header lacks the attributes needed, SUV is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import convert_read_errors

_KEYWORDS = (
    "Units",
    "DecayCorrection",
    "CorrectedImage",
    "PatientWeight",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "RadiopharmaceuticalInformationSequence",
)
_PHILIPS_SUV_FACTOR = 0x70531000
_TAGS = [*(int(tag_for_keyword(keyword) or 0) for keyword in _KEYWORDS), _PHILIPS_SUV_FACTOR]
_LONGEST = timedelta(days=2)
"""No scan starts later after the injection: dates that differ by more were shifted when the file was anonymised."""


def suv_factor(paths: Sequence[Path]) -> float:
    """The factor by which real-world values of a PET series are multiplied to give SUV by body weight.

    Args:
        paths: The files of the series.

    Raises:
        ReadError: if a file lacks an attribute needed, with the attribute's name.
    """
    headers = []
    for path in paths:
        with convert_read_errors(path, "DICOM"):
            headers.append(dcmread(path, stop_before_pixels=True, specific_tags=_TAGS))
    with convert_read_errors(paths[0], "DICOM PET"):
        return _factor(paths[0], headers)


def _factor(path: Path, headers: Sequence[Dataset]) -> float:
    first = headers[0]
    units = str(first.get("Units") or "")
    if units == "GML":
        return 1.0
    if units == "CNTS" and (factor := first.get(_PHILIPS_SUV_FACTOR)) is not None and float(factor.value) > 0:
        return float(factor.value)
    if units != "BQML":
        raise ReadError(f"{path}: PET values are in {units or 'unknown units'}; SUV needs BQML. Read it without SUV")
    corrected = {str(c) for c in _many(_needed(path, first, "CorrectedImage"))}
    if not {"ATTN", "DECY"} <= corrected:
        raise ReadError(f"{path}: PET not corrected for attenuation and decay ({', '.join(corrected)}) has no SUV")
    weight_kg = float(_needed(path, first, "PatientWeight"))
    tracer = _needed(path, first, "RadiopharmaceuticalInformationSequence")[0]
    dose_bq = float(_needed(path, tracer, "RadionuclideTotalDose"))
    if not (weight_kg > 0 and dose_bq > 0):
        raise ReadError(f"{path}: PatientWeight {weight_kg} kg or RadionuclideTotalDose {dose_bq} Bq is not positive")
    return weight_kg * 1000 / _decayed(path, headers, tracer, dose_bq)


def _decayed(path: Path, headers: Sequence[Dataset], tracer: Dataset, dose_bq: float) -> float:
    """The injected dose decayed to the time to which the image is corrected."""
    reference = str(_needed(path, headers[0], "DecayCorrection"))
    if reference == "ADMIN":
        return dose_bq
    if reference != "START":
        raise ReadError(f"{path}: DecayCorrection {reference!r} does not tell what time the values are corrected to")
    half_life = timedelta(seconds=float(_needed(path, tracer, "RadionuclideHalfLife")))
    if half_life <= timedelta(0):
        raise ReadError(f"{path}: RadionuclideHalfLife is not positive")
    scanned = _scan_start(path, headers)
    waited = scanned - _injected(path, tracer, scanned)
    if not timedelta(0) <= waited <= _LONGEST:
        raise ReadError(f"{path}: the scan began {waited} after the injection; one of the two times is wrong")
    return dose_bq * 0.5 ** (waited / half_life)


def _scan_start(path: Path, headers: Sequence[Dataset]) -> datetime:
    """Series time, unless it is later than the first acquisition: then the series was created by later processing."""
    series = _moment(_needed(path, headers[0], "SeriesDate"), _needed(path, headers[0], "SeriesTime"))
    timed = [h for h in headers if h.get("AcquisitionTime")]
    acquired = [_moment(h.get("AcquisitionDate") or h.SeriesDate, h.AcquisitionTime) for h in timed]
    return min([series, *acquired])


def _injected(path: Path, tracer: Dataset, scanned: datetime) -> datetime:
    stated = tracer.get("RadiopharmaceuticalStartDateTime")
    if stated:
        moment = datetime.fromisoformat(DT(str(stated)).isoformat())  # type: ignore[union-attr] # a string gives a DT
        return moment.replace(tzinfo=None)
    time = str(_needed(path, tracer, "RadiopharmaceuticalStartTime"))
    injected = _moment(scanned.strftime("%Y%m%d"), time)
    return injected if injected <= scanned else injected - timedelta(days=1)  # across midnight


def _moment(date: Any, time: Any) -> datetime:
    day, hour = DA(str(date)), TM(str(time))
    if day is None or hour is None:
        raise ValueError(f"no date or time in {date!r} {time!r}")
    return datetime.combine(day, hour)


def _needed(path: Path, place: Dataset, keyword: str) -> Any:
    value = place.get(keyword)
    if value is None or value == "":
        raise ReadError(f"{path} lacks {keyword}, which SUV needs; anonymising may have removed it. Read without SUV")
    return value


def _many(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)

"""What SEG, RTSTRUCT and SR have in common: patient, equipment, dates, segment descriptors and file writing.

Nothing here depends on the clock: content dates are those of the source series, so that the same result always gives
the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Literal

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from medmaskrcnn.export.codes import Coding, coding_of
from medmaskrcnn.export.patient import UTF_8
from medmaskrcnn.export.source_series import SourceSeries
from medmaskrcnn.export.uids import ResultUIDs
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN

AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
"""How segments came about; semiautomatic once a person has corrected them (0062,0008), (3006,0036).

Manual are labels that a person drew and that were converted from another form."""

MANUFACTURER = "medmaskrcnn"
SERIES_NUMBERS = {"SEG": 9001, "RTSTRUCT": 9002, "SR": 9003}
_LONG, _SHORT = 64, 16  # characters of VR LO and SH
_NO_DATE, _NO_TIME = "19000101", "000000"


@dataclass(frozen=True, eq=False)
class SegmentDescriptor:
    """How one instance is described in DICOM.

    Attributes:
        label: Segment label shown by a viewer, ``"liver 1"``: the class and the id, unique in the object.
        name: The class.
        coding: Its coded terms.
        tracking_uid: Its Tracking UID, the same in SEG and SR.
        index: Its index among the result's instances; ``None`` for a class of which none was found.
        description: The class and, after a semicolon, its score; readers take the class from it.
    """

    label: str
    name: str
    coding: Coding
    tracking_uid: str
    index: int | None
    description: str


def uids_of(result: CaseResult, source: SourceSeries, algorithm: AlgorithmType) -> ResultUIDs:
    """The UIDs of the result's objects; they differ once a person has corrected it."""
    return ResultUIDs(result, source.series_uid, source.sop_instance_uids, variant=algorithm)


def segment_descriptors(result: CaseResult, uids: ResultUIDs) -> list[SegmentDescriptor]:
    """One per instance of the result, in the order of the ids 1..n.

    A result without instances gives one for each class that the model detects: an object needs at least one segment
    or region, and this records which classes were not found.
    """
    found, settings = result.instances, result.record.settings
    codes = settings.get("codes")
    names = [found.class_names[label] for label in found.labels]
    if names:
        return [
            SegmentDescriptor(
                label=printable(f"{name[: _LONG - 8]} {i + 1}"),
                name=name,
                coding=coding_of(name, codes),
                tracking_uid=uids.tracking(i),
                index=i,
                description=printable(f"{name}; score {found.scores[i]:.3f}"),
            )
            for i, name in enumerate(names)
        ]
    return [
        SegmentDescriptor(
            label=printable(f"{name[: _LONG - 14]}: none found"),
            name=name,
            coding=coding_of(name, codes),
            tracking_uid=uids.other("none found", name),
            index=None,
            description=printable(f"{name}; none found"),
        )
        for name in settings.get("classes") or found.class_names
    ]


def series_description(result: CaseResult, what: str) -> str:
    """Starts with RESEARCH and states if the model was used out of its domain; at most 64 characters."""
    stamp = "RESEARCH OUT OF DOMAIN" if result.record.out_of_domain else "RESEARCH"
    return f"{stamp} {what} by {printable(result.record.model_name)}"[:_LONG].strip()


def content_description(result: CaseResult) -> str:
    """Content Description of the object, at most 64 characters."""
    return (OUT_OF_DOMAIN if result.record.out_of_domain else "Research use only. Not a medical device.")[:_LONG]


def printable(text: str) -> str:
    """``text`` without the backslashes and control characters that DICOM's short strings may not hold."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in text)


def character_set(source: SourceSeries, texts: Iterable[str]) -> str:
    """The character set that the scan's header can be written in; UTF-8 where our texts are not plain ASCII."""
    return str(source.first.SpecificCharacterSet) if all(text.isascii() for text in texts) else UTF_8


def software_version(result: CaseResult) -> str:
    """The version alone: ``"0.1.0"`` of ``"medmaskrcnn 0.1.0"``."""
    return result.record.software.rpartition(" ")[2][:_LONG]


def serial_number(result: CaseResult) -> str:
    """The model's hash, which identifies the weights."""
    return result.record.model_sha256[:_LONG] or "unknown"


def content_date_time(source: SourceSeries) -> tuple[str, str]:
    """Date and time of the scan, used as content date and time: with the clock's, no two files would be equal."""
    header = source.first
    for kind in ("Content", "Acquisition", "Series", "Study"):
        date = header.get(f"{kind}Date")
        if date:
            return _date(str(date)), _time(str(header.get(f"{kind}Time") or ""))
    return _NO_DATE, _NO_TIME


def _date(text: str) -> str:
    try:
        return text if DA(text) and len(text) == len(_NO_DATE) else _NO_DATE
    except ValueError:
        return _NO_DATE


def _time(text: str) -> str:
    try:
        return text if text and TM(text) else _NO_TIME
    except ValueError:
        return _NO_TIME


def equipment_attributes(result: CaseResult, source: SourceSeries) -> dict[str, Any]:
    """Equipment and series attributes of an object, as arguments of highdicom's classes."""
    date, time = content_date_time(source)
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": printable(result.record.model_name)[:_LONG] or MANUFACTURER,
        "software_versions": software_version(result),
        "device_serial_number": serial_number(result),
        "content_date": date,
        "content_time": time,
        "series_date": date,
        "series_time": time,
    }


def set_fixed_timestamps(dataset: Dataset, source: SourceSeries) -> None:
    """Replace dates and times that a library took from the clock by :func:`content_date_time`."""
    date, time = content_date_time(source)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time


def write_dataset(dataset: Dataset, stream: IO[bytes]) -> None:
    """Write a DICOM file (PS3.10); the same dataset gives the same bytes."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    stream.write(buffer.getvalue())

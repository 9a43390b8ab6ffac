"""What a scan's header says about patient and study, made fit for a new object: valid values stay, others are emptied.

Headers come from everywhere: character sets that are misspelt or missing, dates such as ``1981/03/02`` that an
anonymiser left behind, words where the standard lists codes. An object that copies them is invalid, or cannot be
written at all. So every attribute that is copied goes through :func:`valid_header` first. Values are checked by
pydicom's own rules for each value representation (DICOM PS3.5, table 6.2-1); what breaks them is emptied where the
standard allows an empty value (type 2), and removed elsewhere. No value is corrected by a guess, and none is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.charset import convert_encodings, python_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, DT, TM, validate_value

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""Attributes that must be there but may be empty, and that badly anonymised files lack."""

UTF_8 = "ISO_IR 192"

_TERMS = {
    "PatientSex": ("M", "F", "O"),
    "PatientSexNeutered": ("ALTERED", "UNALTERED"),
    "PregnancyStatus": (1, 2, 3, 4),
    **dict.fromkeys(("SmokingStatus",), ("YES", "NO", "UNKNOWN")),
    **dict.fromkeys(("PatientIdentityRemoved", "QualityControlSubject", "BurnedInAnnotation"), ("YES", "NO")),
    "LongitudinalTemporalInformationModified": ("UNMODIFIED", "MODIFIED", "REMOVED"),
    "TypeOfPatientID": ("TEXT", "RFID", "BARCODE"),
}
"""Enumerated values of what is copied (PS3.3, C.7.1 to C.7.2, C.12.1)."""

_GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0032, 0x0038, 0x0040})
_ALSO = frozenset({0x00200010, 0x00201040})  # Study ID, Position Reference Indicator
_NOT_COPIED = frozenset({0x00080005, 0x00080008, 0x00080060})  # character set, Image Type, Modality: of the images
_ONE_LINE = frozenset({"AE", "CS", "LO", "PN", "SH"})
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_CHECKED = _ONE_LINE | _TEXT | {"AS", "DA", "DS", "DT", "IS", "TM"}
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_CHINESE = "\x1b$)A"
"""The escape sequence of ISO 2022 IR 58, which pydicom 3.0 leaves in the text that it decodes."""

_PERSON_PARTS = 5  # components of a name, separated by carets


def valid_header(header: Dataset) -> tuple[str, ...]:
    """Empty or remove the attributes of patient and study whose values are invalid; text becomes plain Unicode.

    Args:
        header: A header as read from a file; changed in place. Its Specific Character Set is set to one in which all of
            its text can be written: its own where that is plain, else UTF-8.

    Returns:
        Keywords of the attributes that were emptied or removed, in the order of their tags.
    """
    _assume_utf8(header)
    emptied = []
    for tag in _copied(header):
        element = _element(header, tag)
        if element is None or not _made_valid(element):
            emptied.append(element.keyword if element is not None and element.keyword else _keyword(tag))
            del header[tag]
    for keyword in TYPE_2:
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    header.SpecificCharacterSet = _character_set(header)
    return tuple(emptied)


def _assume_utf8(header: Dataset) -> None:
    """Read text beyond ASCII as UTF-8 if the header names no character set and its bytes are valid UTF-8."""
    if header.get("SpecificCharacterSet") not in (None, "", "ISO_IR 6") or not isinstance(header, FileDataset):
        return
    raw = [header.get_item(tag) for tag in _copied(header)]
    values = [one.value for one in raw if isinstance(one, RawDataElement) and isinstance(one.value, bytes)]
    try:
        for value in values:
            value.decode("utf-8")
    except UnicodeDecodeError:
        return
    if not all(value.isascii() for value in values):
        implicit, little = header.original_encoding
        header.set_original_encoding(implicit, little, convert_encodings(UTF_8))


def _copied(dataset: Dataset) -> list[BaseTag]:
    """Tags that objects may copy from a header: those of patient, study and visit, not those of the images."""
    return [tag for tag in sorted(dataset.keys()) if (tag.group in _GROUPS or tag in _ALSO) and tag not in _NOT_COPIED]


def _element(dataset: Dataset, tag: BaseTag) -> DataElement | None:
    """An element, or ``None`` if its bytes are no value of its representation."""
    try:
        return dataset[tag]
    except Exception:  # pydicom raises several kinds; all mean that there is no such value
        return None


def _keyword(tag: BaseTag) -> str:
    return DataElement(tag, "UN", b"").keyword or str(tag)


def _made_valid(element: DataElement) -> bool:
    """Whether an element is valid; its text becomes plain Unicode, and invalid items of a sequence are left out."""
    if element.VR == "SQ":
        items = [item for item in element.value if _valid_item(item)]
        complete = bool(items) or not element.value
        element.value = items
        return complete
    if element.value in (None, ""):
        return True
    if element.VR not in _CHECKED:
        return element.value in _TERMS.get(element.keyword, (element.value,))
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    if len(values) > 1 and not element.tag.is_private and dictionary_VM(element.tag) == "1":
        values = values[:1] if element.keyword in TYPE_2 else []
    texts = [str(value).replace(_CHINESE, "") if element.VR in _TEXT else value for value in values]
    if not texts or not all(_is_valid(element, value) for value in texts):
        return False
    if element.VR in _TEXT:
        element.value = texts[0] if len(texts) == 1 else texts
    return True


def _valid_item(item: Dataset) -> bool:
    """Whether an item of a sequence can be copied whole: nothing in it is invalid, and a code is complete."""
    item.pop("SpecificCharacterSet", None)  # its text is Unicode by now
    elements = [_element(item, tag) for tag in sorted(item.keys())]
    if not elements or not all(one is not None and _made_valid(one) for one in elements):
        return False
    return not any(keyword in item for keyword in _CODE) or all(item.get(keyword) for keyword in _CODE[1:])


def _is_valid(element: DataElement, value: Any) -> bool:
    vr, text = element.VR, str(value)
    try:
        validate_value(vr, text, RAISE)
        if vr in ("DA", "TM", "DT") and text.strip():
            {"DA": DA, "TM": TM, "DT": DT}[vr](text.strip())
    except (ValueError, OverflowError):
        return False
    if vr == "DA" and text.strip() and len(text.strip()) != len("YYYYMMDD"):
        return False
    if not all(c.isprintable() or c == "\u3000" or (c in "\t\n\f\r" and vr not in _ONE_LINE) for c in text):
        return False
    if vr == "PN" and any(group.count("^") >= _PERSON_PARTS for group in text.split("=")):
        return False
    terms = _TERMS.get(element.keyword)
    return terms is None or text in map(str, terms)


def _character_set(header: Dataset) -> str:
    """The header's own character set if it is plain and holds all texts, else UTF-8."""
    own = header.get("SpecificCharacterSet")
    texts = list(_texts(header))
    if isinstance(own, str) and own.startswith("ISO_IR ") and own in python_encoding and own != "ISO_IR 6":
        codec = python_encoding[own]
        try:
            if all(text.encode(codec).decode(codec) == text for text in texts):
                return own
        except UnicodeError:
            pass
    return UTF_8


def _texts(dataset: Dataset) -> Iterator[str]:
    """All text of the checked groups, that of sequences included."""
    for tag in _copied(dataset):
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT and element.value is not None:
            yield str(element.value)

"""De-identification after the Basic Application Level Confidentiality Profile (DICOM PS3.15, annex E).

The action for each attribute comes from the standard's table E.1-1, which the package dicom-anonymizer provides
(edition 2026c). The actions are carried out here, because the profile requires them inside sequences too and because
the same input must give the same output: UIDs are replaced by their hashes, so that references stay consistent.

Limits: pixels are not changed. A name burned into the image stays, and so does a face that a head scan shows. Nor is
this a pseudonymisation with a secret key: anyone who has the original UIDs can compute the new ones.

=========== ==================================================================================
action      done here
=========== ==================================================================================
X           removed
Z           emptied; patient's name and ID become a pseudonym, so that patients stay apart
D           a dummy value of the attribute's type
U           a hash of the UID
X/Z         emptied
X/D, Z/D    a dummy value
X/Z/U*      sequences are cleaned, their UIDs hashed
private     removed
=========== ==================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID

from medmaskrcnn.errors import MissingExtraError
from medmaskrcnn.export.uids import uid_of
from medmaskrcnn.structures.case_result import CaseResult

EDITION = "dicomfields_2026c"
METHOD = "PS3.15 basic profile, table of 2026c; pixels not cleaned"  # at most 64 characters, VR LO
_PROFILE_CODE = ("113100", "DCM", "Basic Application Confidentiality Profile")
_ACTIONS = {
    "replace": "D",
    "empty": "Z",
    "delete": "X",
    "replace_UID": "U",
    "empty_or_replace": "D",
    "delete_or_empty": "Z",
    "delete_or_replace": "D",
    "delete_or_empty_or_replace": "D",
    "delete_or_empty_or_replace_UID": "U",
}
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE"), "ANONYMIZED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SS", "US", "SL", "UL", "SV", "UV"), 0),
    **dict.fromkeys(("OB", "OW", "OF", "OD", "OL", "OV", "UN"), b"\0\0"),
    "PN": "ANONYMIZED^",
    "AS": "000Y",
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "UR": "http://anonymized.invalid",
}
_PSEUDONYMS = {"PatientName": "{}^", "PatientID": "{}"}


def deidentify(dataset: Dataset) -> None:
    """Remove from a dataset what identifies the patient; see the module docstring.

    Args:
        dataset: Any DICOM object or header; changed in place, with its file meta. Pixels stay as they are.

    Raises:
        MissingExtraError: if dicom-anonymizer, which provides the table, is not installed.
    """
    pseudonym = pseudonym_of(str(dataset.get("StudyInstanceUID") or ""))
    _clean(dataset, _table())
    for keyword, form in _PSEUDONYMS.items():
        setattr(dataset, keyword, form.format(pseudonym))
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _PROFILE_CODE
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and "MediaStorageSOPInstanceUID" in meta:
        meta.MediaStorageSOPInstanceUID = UID(deidentified_uid(str(meta.MediaStorageSOPInstanceUID)))
        for keyword in ("SourceApplicationEntityTitle", "PrivateInformation", "PrivateInformationCreatorUID"):
            if keyword in meta:
                del meta[keyword]


def deidentified_uid(uid: str) -> str:
    """The UID that replaces another, made from its hash; the standard's own UIDs (SOP classes and so on) stay.

    Example:
        >>> deidentified_uid("1.2.840.10008.5.1.4.1.1.2"), deidentified_uid("1.2.3").startswith("2.25.")
        ('1.2.840.10008.5.1.4.1.1.2', True)
    """
    known = not uid or UID(uid).name != uid
    return uid if known else uid_of("de-identified", uid)


def pseudonym_of(study_uid: str) -> str:
    """The patient's pseudonym after de-identification: the same within a study, different between studies.

    Example:
        >>> len(pseudonym_of("1.2.3"))
        15
    """
    return f"ANON-{int(uid_of('pseudonym', study_uid)[5:]) % 10**10:010d}"


def deidentified_result(result: CaseResult) -> CaseResult:
    """A copy of a result with hashed UIDs in its record and without host and paths."""
    return replace(
        result, record=replace(result.record, source=_hashed(result.record.source)), run=without_places(result.run)
    )


def without_places(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the record that varies from run to run, without host and paths."""
    return {key: value for key, value in run.items() if key in ("seconds", "python", "torch", "threads")}


def _hashed(source: Mapping[str, Any]) -> dict[str, Any]:
    def mapped(key: str, value: Any) -> Any:
        if value is None or not key.endswith(("_uid", "_uids")):
            return value
        return deidentified_uid(value) if isinstance(value, str) else [deidentified_uid(str(v)) for v in value]

    hashed = {key: mapped(key, value) for key, value in source.items()}
    if "notes" in hashed:  # they may name files
        hashed["notes"] = []
    return hashed


@cache
def _table() -> dict[tuple[int, ...], str]:
    """Action by tag, or by (group, element, masks) for repeating groups."""
    try:
        from dicomanonymizer.simpledicomanonymizer import initialize_actions
    except ImportError as error:
        raise MissingExtraError(
            "de-identification needs the table of dicom-anonymizer. Install it: pip install 'dicom-anonymizer>=2.1'"
        ) from error
    return {tuple(tag): _ACTIONS[action.__name__] for tag, action in initialize_actions(EDITION).items()}


def _action(tag: BaseTag, table: Mapping[tuple[int, ...], str]) -> str | None:
    if tag.is_private:
        return "X"
    if (tag.group, tag.element) in table:
        return table[tag.group, tag.element]
    for group, element, group_mask, element_mask in (key for key in table if len(key) > 2):
        if tag.group & group_mask == group & group_mask and tag.element & element_mask == element & element_mask:
            return table[group, element, group_mask, element_mask]
    return None


def _clean(dataset: Dataset, table: Mapping[tuple[int, ...], str]) -> None:
    for tag in list(dataset.keys()):
        action = _action(tag, table)
        if action == "X":
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            if action == "Z":
                element.value = []
            for item in element.value:
                _clean(item, table)
        elif action is not None:
            _replace(element, action)


def _replace(element: DataElement, action: str) -> None:
    if element.VR == "UI":
        value = element.value
        many = isinstance(value, (MultiValue, list))
        element.value = [deidentified_uid(str(v)) for v in value] if many else deidentified_uid(str(value or ""))
    elif action == "Z":
        element.value = None if element.VR != "UI" else ""
    else:
        element.value = _DUMMIES.get(element.VR, "")

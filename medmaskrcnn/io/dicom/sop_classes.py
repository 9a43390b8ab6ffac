"""The kind of a DICOM object in plain words: an image, or one of the objects that only refer to images.

A folder from a hospital mixes scans with contours, segmentations, reports and screenshots. They are distinguished by
SOP Class UID (0008,0016) or, if it is empty (badly anonymised files), by Modality (0008,0060).
Names of SOP classes: DICOM PS3.6, table A-1.
"""

from __future__ import annotations

from pydicom.uid import UID

_STORAGE = "1.2.840.10008.5.1.4.1.1."

NOT_IMAGES: dict[str, str] = {
    "RTSTRUCT": "contours drawn on an image (RTSTRUCT), not an image",
    "SEG": "a segmentation (SEG) made from an image, not an image",
    "SR": "a structured report (SR), not an image",
    "PR": "a presentation state (PR): how to display an image, not an image",
    "KO": "a key object selection (KO): a list of images, not an image",
    "RTDOSE": "a radiation dose distribution (RTDOSE), not an image",
    "RTPLAN": "a radiotherapy plan (RTPLAN), not an image",
    "RTRECORD": "a radiotherapy treatment record, not an image",
    "REG": "a spatial registration (REG), not an image",
    "FID": "spatial fiducials (FID), not an image",
    "RWV": "a real world value mapping (RWV), not an image",
    "DOC": "an encapsulated document (DOC), not an image",
    "M3D": "a surface model (M3D), not an image",
    "ECG": "a waveform (ECG), not an image",
    "RAW": "raw data of a scanner, not an image",
    "SMR": "a stereometric relationship, not an image",
    "PLAN": "a plan, not an image",
    "OTHER": "a DICOM object without pixels, not an image",
    "DICOMDIR": "a table of contents (DICOMDIR), not an image",
}
"""Kinds of DICOM objects that contain no scan, and the message to the user about each."""

_KIND_BY_CLASS: dict[str, str] = {
    f"{_STORAGE}481.3": "RTSTRUCT",
    f"{_STORAGE}66.4": "SEG",
    f"{_STORAGE}66.7": "SEG",  # Label Map Segmentation
    f"{_STORAGE}66.5": "SEG",  # Surface Segmentation
    f"{_STORAGE}66.6": "M3D",  # Tractography Results
    f"{_STORAGE}66.1": "REG",
    f"{_STORAGE}66.3": "REG",  # Deformable
    f"{_STORAGE}66.2": "FID",
    f"{_STORAGE}66": "RAW",
    f"{_STORAGE}67": "RWV",
    f"{_STORAGE}77.1.5.3": "SMR",
    f"{_STORAGE}481.2": "RTDOSE",
    f"{_STORAGE}481.5": "RTPLAN",
    f"{_STORAGE}481.8": "RTPLAN",  # ion plan
    f"{_STORAGE}481.4": "RTRECORD",
    f"{_STORAGE}481.6": "RTRECORD",
    f"{_STORAGE}481.7": "RTRECORD",
    f"{_STORAGE}481.9": "RTRECORD",
    "1.2.840.10008.1.3.10": "DICOMDIR",
}

_KIND_BY_PREFIX: tuple[tuple[str, str], ...] = (
    (f"{_STORAGE}88.59", "KO"),
    (f"{_STORAGE}88.", "SR"),
    (f"{_STORAGE}11.", "PR"),
    (f"{_STORAGE}104.3", "M3D"),  # STL, OBJ, MTL
    (f"{_STORAGE}104.4", "M3D"),
    (f"{_STORAGE}104.5", "M3D"),
    (f"{_STORAGE}104.", "DOC"),
    (f"{_STORAGE}9.", "ECG"),
)

SECONDARY_CAPTURE_CLASSES = frozenset(
    {f"{_STORAGE}7", f"{_STORAGE}7.1", f"{_STORAGE}7.2", f"{_STORAGE}7.3", f"{_STORAGE}7.4"}
)
"""Screenshots, scanned paper, dose reports: images without a position in the patient."""


def non_image_kind(sop_class_uid: str, modality: str) -> str | None:
    """Which non-image a DICOM object is: a key of :data:`NOT_IMAGES`, or ``None`` for an image.

    Args:
        sop_class_uid: SOP Class UID (0008,0016), or "" if the file lacks it.
        modality: Modality (0008,0060); used if the SOP class is empty or private.
    """
    if sop_class_uid in _KIND_BY_CLASS:
        return _KIND_BY_CLASS[sop_class_uid]
    for prefix, kind in _KIND_BY_PREFIX:
        if sop_class_uid.startswith(prefix):
            return kind
    return modality if modality in NOT_IMAGES and not sop_class_uid.startswith(_STORAGE) else None


def sop_class_name(sop_class_uid: str) -> str:
    """The standard's name of a SOP class, ``"CT Image Storage"``; the UID itself where it is private."""
    return str(UID(sop_class_uid).name) if sop_class_uid else "object without SOP Class UID"

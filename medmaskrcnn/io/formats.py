"""Detects the format of a file from its first bytes; its name is used only if the bytes are not conclusive."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from medmaskrcnn.errors import ReadError

READABLE = "DICOM, NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), PNG, TIFF or JPEG"
"""The formats, for error messages."""

_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_NIFTI_MARKS = (b"n+1\0", b"ni1\0")
_NIFTI2_MARKS = (b"n+2\0", b"ni2\0")
_APPLE_DOUBLE = b"\0\x05\x16\x07"  # what macOS adds to archives as "._NAME" beside each file
_HEAD = 512
_NAMES = (
    ((".nii", ".nii.gz"), "NIfTI"),
    ((".nrrd", ".nhdr"), "NRRD"),
    ((".mha", ".mhd"), "MetaImage"),
    ((".dcm", ".dicom", ".ima"), "DICOM"),
    ((".png",), "PNG"),
    ((".tif", ".tiff"), "TIFF"),
    ((".jpg", ".jpeg"), "JPEG"),
)


def sniff(path: Path) -> str | None:
    """The format of a file: ``"DICOM"``, ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"``, ``"PNG"``, ``"TIFF"``, ``"JPEG"``.

    Returns ``None`` for anything else. A damaged file has the format of its name, so that the right reader reports it.

    Raises:
        ReadError: if the file cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise ReadError(f"{path} may not be read: {error.strerror or error}. Check the file's rights") from error
    if head.startswith(_APPLE_DOUBLE):
        return None
    return _by_bytes(head, path) or _by_name(path)


def _by_bytes(head: bytes, path: Path) -> str | None:
    if head[128:132] == b"DICM" or _starts_like_dicom(head):
        return "DICOM"
    for mark, name in _PICTURES:
        if head.startswith(mark):
            return name
    if head.startswith(b"NRRD"):
        return "NRRD"
    if head[344:348] in _NIFTI_MARKS or head[4:8] in _NIFTI2_MARKS:
        return "NIfTI"
    if head.startswith(b"\x1f\x8b"):
        inner = _inflated_head(path)
        return "NIfTI" if inner[344:348] in _NIFTI_MARKS or inner[4:8] in _NIFTI2_MARKS else None
    return "MetaImage" if _looks_like_metaimage(head) else None


def _starts_like_dicom(head: bytes) -> bool:
    """Whether a file without preamble begins with an element of group 0002 or 0008 with a plausible length."""
    if (
        len(head) < 16
        or head[:2] not in (b"\x02\0", b"\x08\0")
        or head[2:4] not in (b"\0\0", b"\x01\0", b"\x05\0", b"\x08\0", b"\x16\0")
    ):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= 256


def _inflated_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _looks_like_metaimage(head: bytes) -> bool:
    text = head.lstrip()
    return text.startswith((b"ObjectType", b"NDims", b"Comment")) and b"NDims" in head


def _by_name(path: Path) -> str | None:
    name = path.name.lower()
    return next((found for suffixes, found in _NAMES if name.endswith(suffixes)), None)

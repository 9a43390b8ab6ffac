"""The errors that users of medmaskrcnn may catch.

Every error about a file, a model or an output folder derives from :class:`MedMaskRCNNError`; its
message names the file and says what to do next. Wrong arguments raise ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

_LONGEST_REASON = 400  # characters of another library's message that we pass on


class MedMaskRCNNError(Exception):
    """Base of all errors that are about the user's files, models or folders."""


class ReadError(MedMaskRCNNError):
    """A file or folder cannot be read as a scan: missing, damaged, not an image, geometry unusable."""


class AmbiguousInputError(ReadError):
    """A folder holds several series and none was chosen."""


class UnsuitableScanError(MedMaskRCNNError):
    """A scan was read but does not fit the model: too many channels, out of the model's domain."""


class ModelFileError(MedMaskRCNNError):
    """A model is unknown, damaged or of another format."""


class OutputError(MedMaskRCNNError):
    """Results cannot be written: no permission, disk full, output exists as a file."""


class MissingExtraError(MedMaskRCNNError):
    """An optional dependency is missing; the message carries the ``pip install`` line."""


class ArchiveError(MedMaskRCNNError):
    """An archive (PACS) does not answer, refuses, or sends what cannot be used."""


def one_line(error: Exception) -> str:
    """Another library's message on one line, cut where it goes on for pages."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."

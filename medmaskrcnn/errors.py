"""The errors that users of medmaskrcnn may catch.

Every error about a file, a model or an output folder derives from :class:`MedMaskRCNNError`. Its :attr:`reason` says
what is wrong and names the file. If another option may help, its :attr:`remedy` names it as an enum member: Python, the
command line, batches and napari each have a table that words it for their users. Wrong arguments raise ``ValueError``
or ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

_LONGEST_REASON = 400  # characters of another library's message that are kept


class Remedy(StrEnum):
    """What a user may do about an error; every interface has its own wording for each of these."""

    ALLOW_OUT_OF_DOMAIN = "allow_out_of_domain"
    RESAMPLE_IRREGULAR = "resample_irregular"
    MERGE_SERIES = "merge_series"
    DROP_DUPLICATES = "drop_duplicates"
    CHOOSE_SERIES = "choose_series"
    REDO = "redo"
    OVERWRITE = "overwrite"
    REPORT = "report"
    RESUME = "resume"
    START_ANEW = "start_anew"
    WRITE_DICOM = "write_dicom"
    USE_FP32 = "use_fp32"
    USE_TORCH = "use_torch"
    TRUST_CERTIFICATE = "trust_certificate"
    SET_TITLES = "set_titles"
    GIVE_ONE_VOLUME = "give_one_volume"
    GIVE_SEQUENCES = "give_sequences"


IN_PYTHON: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Choose another model, or pass allow_out_of_domain=True to run it all the same",
    Remedy.RESAMPLE_IRREGULAR: "To interpolate even slices, pass resample_irregular=True",
    Remedy.MERGE_SERIES: "To read them as one series, pass merge_series=True",
    Remedy.DROP_DUPLICATES: "To read each image once, pass drop_duplicates=True",
    Remedy.CHOOSE_SERIES: "Choose one with series=, its number or UID, or series='largest'",
    Remedy.REDO: "Give another folder, or pass redo=True",
    Remedy.OVERWRITE: "To replace what is there, pass overwrite=True",
    Remedy.RESUME: "Go on with it by resume=True, or train into another folder",
    Remedy.START_ANEW: "Start with resume=False",
    Remedy.WRITE_DICOM: "Write results with formats=['seg', 'sr'] to have some",
    Remedy.USE_FP32: "Try precision='fp32', and if that does not help, another model",
    Remedy.USE_TORCH: "Without them pass engine='torch'",
    Remedy.TRUST_CERTIFICATE: "Name the certificates to trust by Server(authorities=...)",
    Remedy.SET_TITLES: "Set Server(called=..., calling=...)",
    Remedy.GIVE_ONE_VOLUME: "Give it one of them",
    Remedy.GIVE_SEQUENCES: "Give its sequences as a dict, segment({'T1': ..., 'FLAIR': ...}), or as a list",
}
"""Wording of each remedy in :func:`str` of an error."""


class MedMaskRCNNError(Exception):
    """Base of all errors about the user's files, models or folders.

    Args:
        reason: What is wrong with which file.
        remedy: What the user may do about it, if anything.

    Attributes:
        reason: As given; ``str(error)`` adds the remedy, worded for Python.
        remedy: As given.
    """

    def __init__(self, reason: str = "", remedy: Remedy | None = None) -> None:
        super().__init__(*((reason,) if remedy is None else (reason, remedy)))
        self.reason, self.remedy = reason, remedy

    def __str__(self) -> str:
        return with_remedy(self.reason, self.remedy, IN_PYTHON)


class ReadError(MedMaskRCNNError):
    """A file or folder cannot be read as a scan: missing, damaged, not an image, geometry unusable."""


class AmbiguousInputError(ReadError):
    """A folder holds several series and none was chosen."""


class UnsuitableScanError(MedMaskRCNNError):
    """A scan was read but does not fit the model: too many channels, out of the model's domain."""


class ModelFileError(MedMaskRCNNError):
    """A model is unknown or damaged, or its format is not supported."""


class OutputError(MedMaskRCNNError):
    """Results cannot be written: no permission, disk full, output exists as a file."""


class UnwrittenFormatsError(OutputError):
    """Some of the files asked for could not be written; all others are in place.

    Attributes:
        files: Path of each file written, by format.
        failed: Why each of the others could not be written, by format.
    """

    def __init__(self, reason: str, files: Mapping[str, Path], failed: Mapping[str, str]) -> None:
        super().__init__(reason)
        self.files, self.failed = dict(files), dict(failed)


class MissingExtraError(MedMaskRCNNError):
    """An optional dependency is missing; the message contains the ``pip install`` line."""


class ArchiveError(MedMaskRCNNError):
    """An archive (PACS) does not answer, refuses a request, or sends data that cannot be used."""


class InvalidOptionError(ValueError):
    """An option has an invalid value, or one that this machine or model does not support.

    Attributes:
        option: Name of the option, ``"device"``.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option

    def __str__(self) -> str:
        return str(self.args[1])


def with_remedy(reason: str, remedy: Remedy | None, words: Mapping[Remedy, str]) -> str:
    """A reason followed by what may be done about it, worded for one interface.

    Args:
        reason: A sentence without full stop, or several lines.
        remedy: What may be done.
        words: The interface's table; a remedy missing from it is not available there.
    """
    if remedy is None or remedy not in words:
        return reason
    return f"{reason}{chr(10) if chr(10) in reason else '. '}{words[remedy]}"


def one_line(error: Exception) -> str:
    """Another library's message on one line, truncated if long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."

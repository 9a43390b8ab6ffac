"""The errors that users of medmaskrcnn may catch.

Every error about a file, a model or an output folder derives from :class:`MedMaskRCNNError`. Its :attr:`reason` says
what is wrong and names the file. Where a user may ask for something else instead, its :attr:`remedy` says what, as
data: Python, the command line, batches and napari have each a table of their own words for it. Wrong arguments raise
``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

_LONGEST_REASON = 400  # characters of another library's message that we pass on


class Remedy(StrEnum):
    """What a user may ask for to get on; every interface has its own words for each of these."""

    ALLOW_OUT_OF_DOMAIN = "allow_out_of_domain"
    RESAMPLE_IRREGULAR = "resample_irregular"
    CHOOSE_SERIES = "choose_series"
    REDO = "redo"
    REPORT = "report"
    RESUME = "resume"
    START_ANEW = "start_anew"
    WRITE_DICOM = "write_dicom"
    USE_FP32 = "use_fp32"
    USE_TORCH = "use_torch"
    TRUST_CERTIFICATE = "trust_certificate"
    SET_TITLES = "set_titles"


IN_PYTHON: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Choose another model, or pass allow_out_of_domain=True to run it all the same",
    Remedy.RESAMPLE_IRREGULAR: "To interpolate even slices, pass resample_irregular=True",
    Remedy.CHOOSE_SERIES: "Choose one with series=, its number or UID, or series='largest'",
    Remedy.REDO: "Give another folder, or pass redo=True",
    Remedy.RESUME: "Go on with it by resume=True, or train into another folder",
    Remedy.START_ANEW: "Start with resume=False",
    Remedy.WRITE_DICOM: "Write results with formats=['seg', 'sr'] to have some",
    Remedy.USE_FP32: "Try precision='fp32', and if that does not help, another model",
    Remedy.USE_TORCH: "Without them pass engine='torch'",
    Remedy.TRUST_CERTIFICATE: "Name the certificates to trust by Server(authorities=...)",
    Remedy.SET_TITLES: "Set Server(called=..., calling=...)",
}
"""How :func:`str` of an error says it."""


class MedMaskRCNNError(Exception):
    """Base of all errors that are about the user's files, models or folders.

    Args:
        reason: What is wrong, of which file.
        remedy: What the user may ask for to get on, if there is such a thing.

    Attributes:
        reason: As given; ``str(error)`` adds the remedy in Python's words.
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
    """A model is unknown, damaged or of another format."""


class OutputError(MedMaskRCNNError):
    """Results cannot be written: no permission, disk full, output exists as a file."""


class MissingExtraError(MedMaskRCNNError):
    """An optional dependency is missing; the message carries the ``pip install`` line."""


class ArchiveError(MedMaskRCNNError):
    """An archive (PACS) does not answer, refuses, or sends what cannot be used."""


class InvalidOptionError(ValueError):
    """An option has a value that is impossible, or that this machine or model cannot serve.

    Attributes:
        option: Name of the option, ``"device"``.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option

    def __str__(self) -> str:
        return str(self.args[1])


def with_remedy(reason: str, remedy: Remedy | None, words: Mapping[Remedy, str]) -> str:
    """A reason and, behind it, what may be done about it in the words of one interface.

    Args:
        reason: A sentence without full stop, or several lines.
        remedy: What may be done.
        words: The interface's table; a remedy that it lacks cannot be had there.
    """
    if remedy is None or remedy not in words:
        return reason
    return f"{reason}{chr(10) if chr(10) in reason else '. '}{words[remedy]}"


def one_line(error: Exception) -> str:
    """Another library's message on one line, cut where it goes on for pages."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."

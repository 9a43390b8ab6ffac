"""What an exception may tell outside: its type always, its message only where that quotes no value of a file.

DICOM libraries quote the values that they complain of, patients' names and birth dates among them, and so does Python
itself where a text is no number. Messages of errors end up in logs, summaries and reports, which are shared.
"""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType

from medmaskrcnn.errors import MedMaskRCNNError

QUOTING = (
    "pydicom", "highdicom", "pynetdicom", "dicomweb_client", "dicomanonymizer", "urllib3", "requests", "retrying",
)  # fmt: skip
"""Libraries whose messages quote values of headers, or addresses with a patient's ID in them."""

_CONVERSIONS = (ValueError, TypeError, LookupError, ArithmeticError)
"""Raised by Python's own conversions, with the value: ``invalid literal for int(): 'DOE^JANE'``."""

_LONGEST = 200


def words_of(error: BaseException) -> str:
    """An exception in words: type and first line, or the type alone if the message may hold a value of a file."""
    name = type(error).__name__
    line = next(iter(str(error).strip().splitlines()), "")[:_LONGEST]
    return name if not line or quotes_values(error) else f"{name}: {line}"


def quotes_values(error: BaseException) -> bool:
    """Whether an exception comes from a library that quotes values, or from a conversion by Python itself."""
    if isinstance(error, MedMaskRCNNError):
        return False
    place = error.__traceback__
    last = None
    while place is not None:
        if _library(place) in QUOTING:
            return True
        last, place = place, place.tb_next
    return isinstance(error, _CONVERSIONS) and last is not None and not _raises(last)


def traceback_of(error: BaseException) -> str:
    """A traceback with the frames of an exception and its causes, whose messages are those of :func:`words_of`."""
    parts = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{words_of(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nThe exception above came after this one:\n\n".join(parts)


def _library(place: TracebackType) -> str:
    return str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _raises(place: TracebackType) -> bool:
    """Whether the line where an exception began is a ``raise`` statement."""
    line = linecache.getline(place.tb_frame.f_code.co_filename, place.tb_lineno, place.tb_frame.f_globals)
    return line.lstrip().startswith("raise ")

"""Numbers of DICOM attributes, also where they are badly written but can be understood in one way only.

Writers use another value representation than the standard's, put several values into one string, add spaces or write a
decimal comma. ``0,8`` is 0.8; ``0.8,0.5`` are two numbers; whatever could mean two things is not guessed.
"""

from __future__ import annotations

import re
from typing import Any

_SEPARATOR = re.compile(r"\s*[\\;|]\s*|\s+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")


def numbers(value: Any, count: int | None = None) -> list[float]:
    """The numbers of a value.

    Args:
        value: A number, a text, or a list of these; ``None`` has no numbers.
        count: How many there should be, which tells a comma between numbers from a decimal one.

    Raises:
        ValueError: if a text is no number.

    Example:
        >>> numbers("0,8"), numbers("0.8,0.5"), numbers(["1 ", " 2"]), numbers("1,0,0", count=3)
        ([0.8], [0.8, 0.5], [1.0, 2.0], [1.0, 0.0, 0.0])
    """
    if value is None or isinstance(value, int | float):
        return [] if value is None else [float(value)]
    if not isinstance(value, str | bytes):
        if all(isinstance(one, int | float) for one in value):
            return [float(one) for one in value]
        parts = [part for one in value for part in _split(one)]
    else:
        parts = _split(value)
    if count is not None and len(parts) == 1 and count > 2 and parts[0].count(",") == count - 1:
        parts = parts[0].split(",")
    return [number for part in parts for number in _parsed(part)]


def number(value: Any, default: float | None = None) -> float | None:
    """The first number of a value, or the default if it has none."""
    return next(iter(numbers(value)), default)


def _split(value: Any) -> list[str]:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return [part for part in _SEPARATOR.split(text.strip(" \0\t\r\n")) if part]


def _parsed(text: str) -> list[float]:
    text = text.strip(" \0\"'")
    if _DECIMAL_COMMA.fullmatch(text):
        return [float(text.replace(",", "."))]
    return [float(part) for part in text.split(",")] if text else []

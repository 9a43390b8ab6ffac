"""One finding of the check before training, and the words that findings share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LISTED = 5  # examples in one sentence

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One error, warning or note of the check.

    Attributes:
        level: An *error* makes training impossible or its result worthless, a *warning* should be looked at, a *note*
            is given for completeness.
        case: The case it is about; ``None`` if it is about several or all.
        text: One or two sentences.
    """

    level: Level
    case: str | None
    text: str


def count(number: int, what: str) -> str:
    """``"1 case"``, ``"2 cases"``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

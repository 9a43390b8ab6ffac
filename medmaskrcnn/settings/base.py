"""Base class of all settings (immutable, validated on creation, no unknown keys), and their numeric types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

LONGEST_NAME = 200


def check_name(name: str) -> str:
    """Refuse a name that no table, page or terminal should show: empty, very long, or with control characters.

    Raises:
        ValueError: if it is one.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"a name has 1 to {LONGEST_NAME} printable characters, got {name[:40]!r} of {len(name)} characters"
        )
    return name


def _check_text(text: str) -> str:
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise ValueError(f"a text may not hold control characters, got {text[:40]!r}")
    return text


Name = Annotated[str, AfterValidator(check_name)]
"""Of a class or a model: it is shown in tables, pages and terminals."""

Text = Annotated[str, Field(max_length=10_000), AfterValidator(_check_text)]
"""Sentences about a model."""


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def what_is_wrong(found: Mapping[str, Any]) -> str:
    """Message of one entry of ``ValidationError.errors()``: that of our own validator, else pydantic's."""
    ours = found.get("ctx", {}).get("error")
    return str(found["msg"] if ours is None else ours)

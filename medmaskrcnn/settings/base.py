"""Base class of all settings (immutable, validated on creation, no unknown keys), and their numeric types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def what_is_wrong(found: Mapping[str, Any]) -> str:
    """Message of one entry of ``ValidationError.errors()``: that of our own validator, else pydantic's."""
    ours = found.get("ctx", {}).get("error")
    return str(found["msg"] if ours is None else ours)

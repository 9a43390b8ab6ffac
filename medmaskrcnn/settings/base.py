"""Base class of all settings (immutable, validated on creation, no unknown keys), and their numeric types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def what_is_wrong(found: ErrorDetails) -> str:
    """Message of one of the errors listed by pydantic: that of our validator, else pydantic's own."""
    ours = found.get("ctx", {}).get("error")
    return found["msg"] if ours is None else str(ours)

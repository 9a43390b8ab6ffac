"""What all settings share: immutable, checked on creation, unknown keys refused; and the types of their numbers."""

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
    """Base of all settings: immutable, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def what_is_wrong(found: ErrorDetails) -> str:
    """One of the errors that pydantic lists: the sentence of a validator of ours, else its own."""
    ours = found.get("ctx", {}).get("error")
    return found["msg"] if ours is None else str(ours)

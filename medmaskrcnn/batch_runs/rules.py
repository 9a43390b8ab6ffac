"""Rules, as readable YAML, that select the series to segment.

Example::

take:                              # a series must match one of these; without any, every series does
  - modality: [CT]
    description: abdomen|liver     # regular expression anywhere in Series Description, ignoring case
    slices: {min: 20}
    kernel: ^(B|Br)[23]            # in Convolution Kernel
leave:                             # and must match none of these
  - description: thin|bone
per_study: 1                       # of the remaining series of each study, keep the one with the most slices
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from medmaskrcnn.errors import ReadError
from medmaskrcnn.settings import Count, Settings

if TYPE_CHECKING:
    from medmaskrcnn.batch_runs.find import FoundSeries


class Bounds(Settings):
    """A range with both ends included; without ``max`` it has no upper end."""

    min: Annotated[int, Field(ge=0)] = 0
    max: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Bounds:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min must not be above max, got {self.min} and {self.max}")
        return self

    def hold(self, value: int) -> bool:
        """Whether a value lies in the range."""
        return self.min <= value and (self.max is None or value <= self.max)


class Condition(Settings):
    """Conditions on a series, all of which must hold.

    Attributes:
        modality: One of these DICOM modalities.
        description: Regular expression searched in Series Description (0008,103E), ignoring case.
        kernel: Regular expression searched in Convolution Kernel (0018,1210), ignoring case.
        slices: Range of the number of slices.
    """

    modality: tuple[str, ...] | None = None
    description: str | None = None
    kernel: str | None = None
    slices: Bounds | None = None

    @field_validator("modality", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("description", "kernel")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if not self.model_fields_set:
            raise ValueError("a condition needs at least one of modality, description, kernel, slices")
        return self

    def fits(self, series: FoundSeries) -> bool:
        """Whether every condition holds."""
        return (
            (self.modality is None or (series.modality or "") in self.modality)
            and _found_in(self.description, series.description)
            and _found_in(self.kernel, series.kernel)
            and (self.slices is None or self.slices.hold(series.slices))
        )


class Rules(Settings):
    """See the top of this file; empty rules select every series."""

    take: tuple[Condition, ...] = ()
    leave: tuple[Condition, ...] = ()
    per_study: Count | None = None

    def left_out(self, found: Sequence[FoundSeries]) -> dict[str, str]:
        """Why each excluded series is left out, by its identity; the sentences quote nothing from its header."""
        reasons = {}
        studies: dict[str, list[FoundSeries]] = defaultdict(list)
        for series in found:
            number = next((n for n, c in enumerate(self.leave, start=1) if c.fits(series)), None)
            if number is not None:
                reasons[series.identity] = f"the rules leave it out (leave, entry {number})"
            elif self.take and not any(condition.fits(series) for condition in self.take):
                reasons[series.identity] = "the rules do not take it (no entry of take fits)"
            else:
                studies[series.study].append(series)
        for members in studies.values() if self.per_study else ():
            ordered = sorted(members, key=lambda s: (-s.slices, s.identity))
            for series in ordered[self.per_study :]:
                reasons[series.identity] = f"the rules take {self.per_study} of each study, others have more slices"
        return reasons


def read_rules(path: Path) -> Rules:
    """Read rules from a YAML file.

    Raises:
        ReadError: if the file cannot be read, is not YAML, or is not valid as rules.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Rules.model_validate({} if found is None else found)
    except OSError as error:
        raise ReadError(f"cannot read the rules {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReadError(f"the rules {path} are no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ReadError(f"the rules {path} do not fit at {where}: {first['msg']}. See docs/batch.md") from error


def _found_in(expression: str | None, text: str) -> bool:
    return expression is None or re.search(expression, text, re.IGNORECASE) is not None

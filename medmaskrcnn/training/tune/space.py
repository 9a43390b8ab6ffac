"""The search space: values of a plan by dotted path, each with its choices or its range.

In YAML::

    train.learning_rate: {low: 0.0003, high: 0.003, log: true}
    augment.rotate_degrees: {low: 0, high: 20, step: 5}
    model.roi.batch_per_image: [32, 64, 128]
    model.anchors.ratios: [[1.0], [0.5, 1.0, 2.0]]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import Discriminator, Field, RootModel, Tag, ValidationError, model_validator

from medmaskrcnn.errors import ReadError
from medmaskrcnn.settings import Settings
from medmaskrcnn.settings.migration import to_current_path
from medmaskrcnn.training.plan import Plan

_LARGEST_GRID = 1_000


class Choices(Settings):
    """A set of values in no order; anything that YAML can write, including lists."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Choices:
        if len({json.dumps(value) for value in self.choices}) != len(self.choices):
            raise ValueError(f"a choice occurs twice: {list(self.choices)}")
        return self

    def grid(self) -> list[Any]:
        """The values that a grid visits."""
        return list(self.choices)


class Range(Settings):
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low, high: The limits; integers give integers.
        log: Sample uniformly on a logarithmic scale.
        step: Only ``low``, ``low + step`` and so on; not with ``log``.
        points: Number of values that a grid visits if there is no step.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None
    points: Annotated[int, Field(ge=2)] = 3

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step must be positive and at most high - low, got {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def grid(self) -> list[Any]:
        """The values that a grid visits."""
        if self.step is not None:
            count = int((self.high - self.low) / self.step + 1e-9) + 1
            values = [self.low + self.step * k for k in range(count)]
        elif self.log:
            values = np.geomspace(self.low, self.high, self.points).tolist()
        else:
            values = np.linspace(self.low, self.high, self.points).tolist()
        cleaned = [round(value) if self.whole else float(f"{value:.10g}") for value in values]
        return list(dict.fromkeys(cleaned))


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, Mapping) and "choices" in value) else "range"


Dimension = Annotated[Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")], Discriminator(_kind)]


class SearchSpace(RootModel[dict[str, Dimension]]):
    """Dotted paths of a plan and the values they may take."""

    @model_validator(mode="before")
    @classmethod
    def _lists_are_choices(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not values:
            raise ValueError("a search space maps dotted paths of a plan to choices or ranges, and is not empty")
        listed = {key: {"choices": value} if isinstance(value, list) else value for key, value in values.items()}
        return {to_current_path(str(path)): dimension for path, dimension in listed.items()}

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths."""
        return tuple(self.root)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of every path's values.

        Raises:
            ReadError: if there are more than 1,000.
        """
        axes = {path: dimension.grid() for path, dimension in self.root.items()}
        size = int(np.prod([len(axis) for axis in axes.values()], dtype=object))
        if size > _LARGEST_GRID:
            raise ReadError(f"this grid has {size:,} points; take fewer values, or the method random or tpe")
        return (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def read_space(path: str | os.PathLike[str], plan: Plan) -> SearchSpace:
    """Read a search space and check that its paths are values of ``plan``.

    Raises:
        ReadError: if the file is missing, not YAML, not a search space, or names a value that the plan does not have.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        space = SearchSpace.model_validate(content)
    except OSError as error:
        raise ReadError(f"cannot read search space {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReadError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) + ": " if first["loc"] else ""
        raise ReadError(f"{path} is no search space: {where}{first['msg']}") from error
    for name in space.paths:
        try:
            value_at(plan, name)
        except KeyError as error:
            raise ReadError(f"{path}: a plan has no value {name}; {error.args[0]}") from error
    return space


def value_at(plan: Plan, path: str) -> Any:
    """The value of a plan at a dotted path.

    Raises:
        KeyError: if there is none; the message says how far the path goes.
    """
    value: Any = plan.model_dump(mode="json")
    for number, key in enumerate(path.split(".")):
        if not isinstance(value, dict) or key not in value:
            so_far = ".".join(path.split(".")[:number]) or "it"
            has = f"has {', '.join(value)}" if isinstance(value, dict) else "is a value itself"
            raise KeyError(f"{so_far} {has}")
        value = value[key]
    return value


def changed_plan(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The plan with some values replaced.

    Raises:
        ReadError: if the result is not a valid plan; the message names the key.
    """
    content = plan.model_dump(mode="json")
    for path, value in values.items():
        *parents, last = path.split(".")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ReadError(f"these values make no plan: {problems}") from error

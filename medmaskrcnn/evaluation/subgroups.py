"""The tables of an evaluation for each subgroup of its cases: by scanner, sex, site, contrast, ...

A subgroup is made of the cases with one value of a case label (``case_labels`` in the manifest). Its figures are those
of an evaluation of these cases alone, with intervals over their patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.evaluation.metrics.summary import CaseFigures, ClassFigures, MetricSettings, summarise

CaseLabel = str | int | float | bool | None

UNKNOWN = "not stated"
"""The subgroup of cases that lack the label."""

_MOST_NUMBERS = 6  # different numbers of a label, above which they are cut at their tertiles
_MOST_GROUPS = 24


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The figures of the cases that share a label.

    Attributes:
        label: Name of the case label, ``"scanner"``.
        value: Its value in these cases, or a range of numbers.
        cases: Number of cases.
        patients: Number of patients.
        classes: Table of each class.
        overall: Table over all classes.
    """

    label: str
    value: str
    cases: int
    patients: int
    classes: dict[str, ClassFigures]
    overall: ClassFigures


def check_labels(by: Sequence[str], labels: Sequence[Mapping[str, CaseLabel]]) -> None:
    """Refuse labels that no case has, or that differ in nearly every case.

    Args:
        by: Names of case labels.
        labels: The labels of each case.

    Raises:
        InvalidOptionError: naming the labels that there are.
    """
    there = sorted({name for one in labels for name, value in one.items() if value is not None})
    for name in by:
        if name not in there:
            known = f"its case labels are {', '.join(there)}" if there else "they have no case labels"
            raise InvalidOptionError("by", f"no case has a label {name!r}; {known}")
        values = set(_groups([one.get(name) for one in labels]))
        if len(values) > _MOST_GROUPS:
            raise InvalidOptionError(
                "by", f"{name!r} has {len(values)} values; more than {_MOST_GROUPS} are no subgroups"
            )


def subgroups(
    cases: Sequence[CaseFigures],
    labels: Sequence[Mapping[str, CaseLabel]],
    by: Sequence[str],
    class_names: Sequence[str],
    settings: MetricSettings,
    *,
    score: float,
) -> tuple[Subgroup, ...]:
    """The tables of every subgroup, label by label, in the order of the values.

    Args:
        cases: The figures of each case.
        labels: The labels of each case, in the same order.
        by: Names of case labels.
        class_names: The classes that the figures were computed for.
        settings: Settings of the metrics.
        score: Score threshold of the result (inclusive).
    """
    found = []
    for name in by:
        groups = _groups([one.get(name) for one in labels])
        for value in sorted(set(groups), key=lambda group: (group == UNKNOWN, _order(group))):
            own = [case for case, group in zip(cases, groups, strict=True) if group == value]
            classes, overall = summarise(own, class_names, settings, score=score)
            found.append(Subgroup(name, value, len(own), len({case.patient for case in own}), classes, overall))
    return tuple(found)


def _groups(values: Sequence[CaseLabel]) -> list[str]:
    """The subgroup of each value; many different numbers (ages) are cut at their tertiles."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    given = [v for v in values if v is not None]
    if len(numbers) < len(given) or len(set(numbers)) <= _MOST_NUMBERS:
        return [_text(value) for value in values]
    low, high = (float(cut) for cut in np.quantile(numbers, [1 / 3, 2 / 3], method="lower"))
    names = (f"up to {low:g}", f"{low:g} to {high:g}", f"above {high:g}")
    return [UNKNOWN if v is None else names[int(float(v) > low) + int(float(v) > high)] for v in values]


def _text(value: CaseLabel) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else str(value)


def _order(group: str) -> tuple[int, float, str]:
    """Numbers by their size, ranges from low to high, words by the alphabet."""
    first = group.split(" ")[0]
    if first in ("up", "above"):
        return (0, -np.inf if first == "up" else np.inf, group)
    try:
        return (0, float(first), group)
    except ValueError:
        return (1, 0.0, group)

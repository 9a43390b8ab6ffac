"""Patients of cases by the cases' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_FEWEST = 3  # patients that must come of names; fewer are rather kinds of picture (benign_01, malignant_01)
_SLICE_OF_PATIENT = re.compile(
    r"(?P<patient>.+?)(?:[ _-]*(?:slice|frame)|[ _-]+(?:slc|sl|page|img|image|tile|crop|patch|z|t))[ _-]?\d+",
    re.IGNORECASE,
)
_PART_OF_PATIENT = re.compile(r"(?P<patient>.*\d[a-z]?)(?:[ _-]+\d+|[ _-]*\(\d+\))", re.IGNORECASE)


def patients_by_name(ids: Sequence[str]) -> dict[str, str]:
    """Patients of cases whose names are that of a patient and a number: ``P01_003``, ``anna_slice_12``.

    Empty if any name is of another form, or if it would make fewer than three patients or mostly ones of one case.
    """
    matches = {case: _SLICE_OF_PATIENT.fullmatch(case) or _PART_OF_PATIENT.fullmatch(case) for case in ids}
    found = {case: match["patient"] for case, match in matches.items() if match}
    groups = set(found.values())
    return found if len(found) == len(ids) and _FEWEST <= len(groups) <= len(ids) / 2 else {}


def patient_by(pattern: str) -> Callable[[str], str]:
    """The patient of a case by a regular expression: the match of its first group, or else the whole match.

    Raises:
        ValueError: if it is not a regular expression; and, when called, if it does not match the case.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--patient must be a regular expression, got {pattern!r}: {error}") from None

    def patient_of(case: str) -> str:
        match = compiled.search(case)
        text = (match.group(1) if compiled.groups else match.group()) if match else None
        if not text:
            raise ValueError(f"--patient {pattern!r} matches nothing in the case {case!r}")
        return text

    return patient_of

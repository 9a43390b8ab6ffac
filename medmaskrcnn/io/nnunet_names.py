"""nnU-Net's names of files: ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz``, one for each sequence of a case."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medmaskrcnn.errors import ReadError

_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})(?P<ending>(\.[A-Za-z]\w*){1,2})")
_HIDDEN = ("._", ".")


def case_and_channel(path: Path) -> tuple[str, int] | None:
    """The case and the channel that a file's name states; ``None`` if the name is not of this form."""
    found = None if path.name.startswith(_HIDDEN) else _NAME.fullmatch(path.name)
    return None if found is None else (found["case"], int(found["channel"]))


def group_cases(files: Iterable[Path], channels: int) -> dict[Path, tuple[Path, ...]]:
    """The files of each case by channel, for those whose names are of this form; others are left out.

    Args:
        files: Any files.
        channels: Number of sequences that a case must have.

    Returns:
        By the case's path without channel and ending, in the order in which cases first occur.

    Raises:
        ReadError: if a case lacks a channel or has one too many; the message names it.
    """
    cases: dict[Path, dict[int, Path]] = defaultdict(dict)
    for file in files:
        named = case_and_channel(file)
        if named is not None:
            own = cases[file.parent / named[0]]
            if named[1] in own:
                raise ReadError(f"{own[named[1]]} and {file} are one channel of the case {named[0]}")
            own[named[1]] = file
    for case, own in cases.items():
        if sorted(own) != list(range(channels)):
            there = ", ".join(f"_{number:04d}" for number in sorted(own))
            wanted = ", ".join(f"_{number:04d}" for number in range(channels))
            raise ReadError(f"case {case} has the sequences {there}; the model wants {wanted}")
    return {case: tuple(own[number] for number in sorted(own)) for case, own in cases.items()}


def files_by_name(folder: Path) -> list[Path]:
    """The files of a folder if each of them has a name of this form; otherwise, or if it is no folder, none."""
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return files if files and all(case_and_channel(file) is not None for file in files) else []


def files_of_case(path: Path, channels: int) -> tuple[Path, ...] | None:
    """The sequences of the case that a path means: one of its files, its path without channel and ending, its folder.

    Args:
        path: As a user gives it.
        channels: Number of sequences that the model takes; 1 never makes a case of several files.

    Returns:
        The files by channel, or ``None`` if the path means no such case.

    Raises:
        ReadError: if the case lacks a channel or has one too many.
    """
    if channels < 2:
        return None
    if path.is_dir():
        files = files_by_name(path)
        if len({named[0] for file in files if (named := case_and_channel(file)) is not None}) != 1:
            return None
    else:
        named = case_and_channel(path) if path.is_file() else (path.name, 0)
        if named is None or not path.parent.is_dir():
            return None
        files = sorted(f for f in path.parent.iterdir() if (own := case_and_channel(f)) and own[0] == named[0])
    cases = group_cases(files, channels)
    return next(iter(cases.values())) if cases else None

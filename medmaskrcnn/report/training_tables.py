"""The tables of a training: losses by step and validation scores; column names and reader."""

from __future__ import annotations

import csv
from pathlib import Path

from medmaskrcnn.errors import ReadError

LOSSES, VALIDATION = "losses.csv", "validation.csv"
NO_TERMS = ("step", "learning_rate", "seconds")
"""Columns of the losses table that are not losses."""

SMOOTHED = 50
"""Steps of the moving mean that plots show."""


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a table, also while training appends to it, without empty cells; no rows if the file is missing.

    Raises:
        ReadError: if the file is not a table of numbers.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(stream)]
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ReadError(f"{path} is no table of numbers: {error}") from error

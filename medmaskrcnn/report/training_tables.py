"""The tables that a training leaves, losses by step and scores by validation, as written and as explained."""

from __future__ import annotations

import csv
from pathlib import Path

from medmaskrcnn.errors import ReadError

LOSSES, VALIDATION = "losses.csv", "validation.csv"
NO_TERMS = ("step", "learning_rate", "seconds")
"""Columns of the losses that are none."""

SMOOTHED = 50
"""Steps of the moving mean that plots show."""


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a table, also while a training adds to it; empty cells are left out. Without a file there are no rows.

    Raises:
        ReadError: if the file is no table of numbers.
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

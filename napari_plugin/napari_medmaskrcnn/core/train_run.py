"""Reads what a training run has written so far: its losses, and the model to use; without Qt or torch."""

from __future__ import annotations

import csv
from pathlib import Path

from medmaskrcnn.report.training_tables import LOSSES

MODELS = ("best.safetensors", "last.safetensors")


def losses_of(folder: Path) -> list[tuple[float, float]]:
    """(step, total loss) of each complete row; the last one may still be being written."""
    try:
        with (folder / LOSSES).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return []
    points = []
    for row in rows:
        try:
            points.append((float(row["step"]), float(row["total"])))
        except (KeyError, TypeError, ValueError):
            continue
    return points


def model_of(folder: Path) -> Path | None:
    """The best model of a run, else its last one; ``None`` while there is none."""
    return next((folder / name for name in MODELS if (folder / name).is_file()), None)

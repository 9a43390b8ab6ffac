"""Training logs: losses and scores as CSV tables, as a plot, and on boards (TensorBoard, Weights & Biases)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from medmaskrcnn.report.training_tables import LOSSES, NO_TERMS, SMOOTHED, VALIDATION, read_table
from medmaskrcnn.system.files import replacing
from medmaskrcnn.system.tables import TableWriter, harmless
from medmaskrcnn.training.boards import Board
from medmaskrcnn.training.trainer import StepReport
from medmaskrcnn.training.validate import Validation

PLOT = "losses.png"


class Records:
    """Logs in a folder, continued from a given step.

    Args:
        folder: Folder of the run; rows of an interrupted run after ``step`` are dropped.
        step: Updates done so far.
        boards: Where the figures are shown too.
    """

    def __init__(self, folder: Path, step: int, boards: Sequence[Board]) -> None:
        self.folder, self.boards = folder, boards
        for name in (LOSSES, VALIDATION):
            _drop_rows_after(folder / name, step)

    def step(self, report: StepReport) -> None:
        """Add a row of losses."""
        values = {**report.terms, "total": report.total, "learning_rate": report.learning_rate}
        _add_row(self.folder / LOSSES, {"step": report.step, **values, "seconds": report.seconds})
        named = {name if name == "learning_rate" else f"loss/{name}": value for name, value in values.items()}
        for board in self.boards:
            board.add(named, report.step)

    def validated(self, validation: Validation) -> None:
        """Add a row of scores and redraw the plot."""
        per_class = {f"ap50 {name}": value for name, value in validation.per_class.items()}
        _add_row(self.folder / VALIDATION, {"step": validation.step, **validation.scores, **per_class})
        named = {f"validation/{name}": value for name, value in {**validation.scores, **per_class}.items()}
        for board in self.boards:
            board.add(named, validation.step)
        self.plot()

    def plot(self) -> None:
        """Plot losses, scores and learning rate against steps in ``losses.png``."""
        losses, scores = read_table(self.folder / LOSSES), read_table(self.folder / VALIDATION)
        if not losses:
            return
        figure = Figure(figsize=(9, 7.2 if scores else 4.8), layout="constrained")
        ratios = [3, 2, 1] if scores else [3, 1]
        axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        for name in [key for key in losses[0] if key not in NO_TERMS]:
            steps, values = _smoothed([(row["step"], row[name]) for row in losses if name in row])
            axes[0].plot(steps, values, label=name, linewidth=2 if name == "total" else 1)
        axes[0].set(yscale="log", ylabel=f"loss (mean of {SMOOTHED} steps)")
        for name in scores[0] if scores else ():
            if name.startswith(("mask", "box", "dice")):
                points = [(row["step"], row[name]) for row in scores if name in row]
                axes[1].plot(*zip(*points, strict=True), marker="o", label=name)
        if scores:
            axes[1].set(ylim=(0, 1), ylabel="validation")
        rates = [(row["step"], row["learning_rate"]) for row in losses if "learning_rate" in row]
        axes[-1].plot(*zip(*rates, strict=True), color="black", linewidth=1)
        axes[-1].set(ylim=(0, None), ylabel="learning rate")
        for axis in axes:
            axis.grid(alpha=0.3)
        for axis in axes[:-1]:
            axis.legend(fontsize="small", ncols=2)
        axes[-1].set_xlabel("step")
        with replacing(self.folder / PLOT) as path:
            figure.savefig(path, dpi=110, format="png")

    def close(self) -> None:
        """Close the boards."""
        for board in self.boards:
            board.close()


def _add_row(path: Path, row: Mapping[str, float]) -> None:
    columns = _columns(path) or list(row)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        if fresh:
            writer.writerow(columns)
        cells = {str(harmless(name)): _text(value) for name, value in row.items()}
        writer.writerow([cells.get(str(harmless(name)), "") for name in columns])


def _columns(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        kept = [row for row in rows if len(row) == len(head) and int(row[0]) <= step]  # a row may be incomplete
        TableWriter(file).writerows([head, *kept])


def _smoothed(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    steps, values = [], []
    for end in range(1, len(points) + 1):
        window = [value for _, value in points[max(0, end - SMOOTHED) : end]]
        steps.append(points[end - 1][0])
        values.append(sum(window) / len(window))
    return steps, values

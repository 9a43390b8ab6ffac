"""Trials of a search as a table (CSV) and a plot: scores in order, and against each value that was searched over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmaskrcnn.system.files import replacing
from medmaskrcnn.system.tables import TableWriter
from medmaskrcnn.training.tune.space import Choices, SearchSpace

_COLUMNS = 3  # of panels in the plot
_PANEL = (4.2, 3.2)  # inches


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: In the order of starting; an interrupted trial is repeated under another number.
        values: Values by dotted path.
        score: Score, or ``None`` if it failed.
        seconds: Duration.
        error: Why it failed, else empty.
        folder: Folder of its training, relative to the search's folder.
    """

    number: int
    values: dict[str, Any]
    score: float | None
    seconds: float
    error: str = ""
    folder: str = ""


def value_text(value: Any) -> str:
    """A value in readable form."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def write_trials(trials: Sequence[Trial], paths: Sequence[str], path: Path) -> None:
    """Write one row per trial: number, score, a column for each dotted path, seconds, folder, error."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow(["trial", "score", *paths, "seconds", "folder", "error"])
        for one in trials:
            score = "" if one.score is None else f"{one.score:.6g}"
            cells = [json.dumps(one.values[p]) if not isinstance(one.values[p], str) else one.values[p] for p in paths]
            writer.writerow([one.number, score, *cells, f"{one.seconds:.1f}", one.folder, one.error])


def draw_trials(trials: Sequence[Trial], space: SearchSpace, path: Path) -> None:
    """Plot scores in the order of trials with the best so far, then scores against each value; PNG."""
    scored = [one for one in trials if one.score is not None]
    panels = 1 + len(space.paths)
    columns = min(_COLUMNS, panels)
    rows = ceil(panels / columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    _draw_order(axes[0], trials, scored)
    for axis, name in zip(axes[1:], space.paths, strict=False):
        _draw_value(axis, name, space, scored)
    for axis in axes[panels:]:
        axis.set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_order(axis: Axes, trials: Sequence[Trial], scored: Sequence[Trial]) -> None:
    scores = [one.score or 0.0 for one in scored]
    numbers = [one.number for one in scored]
    axis.plot(numbers, scores, "o", label="trial")
    axis.step(numbers, list(accumulate(scores, max)), where="post", label="best so far")
    failed = [one.number for one in trials if one.score is None]
    if failed:
        floor = min(scores, default=0.0)
        axis.plot(failed, [floor] * len(failed), "x", color="tab:red", label="failed")
    axis.set(xlabel="trial", ylabel="score")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _draw_value(axis: Axes, name: str, space: SearchSpace, scored: Sequence[Trial]) -> None:
    dimension = space.root[name]
    scores = [one.score or 0.0 for one in scored]
    if isinstance(dimension, Choices):
        labels = [value_text(value) for value in dimension.choices]
        known = [json.dumps(value) for value in dimension.choices]
        places = [known.index(json.dumps(one.values[name])) for one in scored]
        axis.plot(places, scores, "o")
        axis.set_xticks(range(len(labels)), labels, fontsize="small")
        axis.set_xlim(-0.5, len(labels) - 0.5)
    else:
        axis.plot([one.values[name] for one in scored], scores, "o")
        axis.set_xscale("log" if dimension.log else "linear")
    axis.set(xlabel=name, ylabel="score")
    axis.grid(alpha=0.3)

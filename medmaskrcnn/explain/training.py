"""The trace of a training: losses and scores by epoch, as a table and as a page, each with an explanation.

It reads the tables that ``medmaskrcnn train`` writes to the run's folder, also during training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.explain.chart import line_chart, moving_mean
from medmaskrcnn.explain.page import HtmlPage, Section, figure, figures, page, paragraph, table
from medmaskrcnn.report.training_tables import LOSSES, NO_TERMS, SMOOTHED, VALIDATION, read_table

MEANINGS = {
    "total": "The sum of all terms, each times its weight. What is learnt from; by itself it says little.",
    "objectness": "Is there anything at an anchor? 0.69 is a coin's toss; it falls first.",
    "rpn_box": "How far a moved anchor is from its object, in shares of the anchor.",
    "classification": "Which class is a region? At first the logarithm of the number of classes and background.",
    "box": "How far a region's corrected box is from its object. It may rise early on: more proposals, more work.",
    "mask": "Which voxels of the box belong to the object? 0.69 is a coin's toss; it falls last.",
    "semantic": "How wrong the class of every voxel is, whichever object it belongs to (cross-entropy and Dice).",
    "mask_dice": "One minus the overlap (Dice) of the predicted masks with the true ones.",
    "mask_ap10": "Average precision of masks at an IoU of 0.1: found, if not outlined.",
    "mask_ap50": "Average precision of masks at an IoU of 0.5: found and roughly outlined.",
    "mask_ap75": "Average precision of masks at an IoU of 0.75: well outlined.",
    "box_ap50": "Average precision of boxes at an IoU of 0.5.",
    "dice": "Overlap of what was found with the truth, mean over classes.",
}
"""What the columns of the tables mean, in a sentence each."""

_PARTS = 10  # into which a training without validation is divided


@dataclass(frozen=True)
class Epoch:
    """The training steps between two validations.

    Attributes:
        step: The last step.
        losses: Mean of each term since the previous epoch.
        learning_rate: Learning rate of the last step.
        scores: Validation scores at its end; empty without validation.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    scores: dict[str, float]


@dataclass(frozen=True, eq=False)
class TrainingTrace(HtmlPage):
    """The trace of a training.

    Attributes:
        epochs: Epochs in order.
        html: The complete page.
    """

    epochs: tuple[Epoch, ...]
    html: str


def is_training(folder: Path) -> bool:
    """Whether a folder is that of a training's run."""
    return (folder / LOSSES).is_file()


def trace_training(folder: str | os.PathLike[str]) -> TrainingTrace:
    """Read a run's folder and explain it.

    Args:
        folder: The folder given to ``medmaskrcnn train -o``.

    Raises:
        ReadError: if it has no table of losses, or the table is damaged.
    """
    run = Path(folder)
    if not is_training(run):
        raise ReadError(f"{run} holds no {LOSSES}: it is not the folder of a training")
    losses = read_table(run / LOSSES)
    if not losses:
        raise ReadError(f"{run / LOSSES} has no row yet: no step was taken")
    scores = read_table(run / VALIDATION)
    epochs = _epochs(losses, scores)
    sections = [_loss_section(losses), *([_score_section(scores)] if scores else [])]
    sections += [*_rate_section(losses), _epoch_section(epochs)]
    judged = "1 validation" if len(scores) == 1 else f"{len(scores)} validations"
    lead = f"{int(losses[-1]['step']):,} steps, {judged}, {_duration(losses)}."
    return TrainingTrace(epochs, page(f"How the training {run.resolve().name} went", paragraph(lead), sections))


def _epochs(losses: Sequence[Mapping[str, float]], scores: Sequence[Mapping[str, float]]) -> tuple[Epoch, ...]:
    ends = [int(row["step"]) for row in scores] or _even_ends([int(row["step"]) for row in losses])
    epochs, begin = [], 0
    for number, end in enumerate(ends):
        rows = [row for row in losses if begin < row["step"] <= end]
        means = {name: sum(r[name] for r in rows if name in r) / len(rows) for name in _terms(rows)} if rows else {}
        found = {name: value for name, value in scores[number].items() if name != "step"} if scores else {}
        rate = rows[-1].get("learning_rate", 0.0) if rows else 0.0
        epochs.append(Epoch(end, means, rate, found))
        begin = end
    return tuple(epochs)


def _even_ends(steps: Sequence[int]) -> list[int]:
    """Last steps of about ten equal parts."""
    size = max(1, -(-len(steps) // _PARTS))
    return [steps[min(i + size, len(steps)) - 1] for i in range(0, len(steps), size)]


def _terms(rows: Sequence[Mapping[str, float]]) -> list[str]:
    return [name for name in rows[0] if not name.startswith(NO_TERMS)] if rows else []


def _loss_section(losses: Sequence[Mapping[str, float]]) -> Section:
    charts = []
    for name in sorted(_terms(losses), key=lambda term: term != "total"):
        steps, values = _column(losses, name)
        smooth = moving_mean(values, SMOOTHED)
        ordered = sorted(values)
        top = 1.05 * max(ordered[int(0.98 * (len(ordered) - 1))], *smooth, 1e-6)
        drawing = line_chart(steps, values, label=f"{name} by step", top=top, smooth=smooth)
        first = smooth[min(SMOOTHED, max(1, len(smooth) // 4)) - 1]  # of a short training, its first quarter
        said = f"<strong>{escape(name)}</strong>: {first:.3g} at first, {smooth[-1]:.3g} "
        charts.append(
            figure(drawing, f"{said}at last; the chart ends at {top:.3g} above. {escape(MEANINGS.get(name, ''))}")
        )
    text = paragraph(
        f"Faint: every step. Strong: the mean of {SMOOTHED} steps. Losses of different terms cannot be compared with "
        "one another; each by itself should fall and then level off."
    )
    return Section("losses", "What is learnt from", text + figures(*charts))


def _score_section(scores: Sequence[Mapping[str, float]]) -> Section:
    charts = []
    for name in [column for column in scores[-1] if column != "step"]:
        steps, values = _column(scores, name)
        best = max(range(len(values)), key=values.__getitem__)
        said = (
            f"<strong>{escape(name)}</strong>: {values[-1]:.2f}, best {values[best]:.2f} at step {int(steps[best]):,}."
        )
        drawing = line_chart(steps, values, label=f"{name} by step", top=1.0)
        charts.append(figure(drawing, f"{said} {escape(_meaning(name))}"))
    text = paragraph(
        "On the validation cases, from which nothing is learnt. This is what counts: where it falls while the losses "
        "go on falling, the network learns its cases by heart. Each chart runs from 0 to 1."
    )
    return Section("scores", "What it is worth", text + figures(*charts))


def _meaning(name: str) -> str:
    """Explanation of a score; ``ap50 liver`` is that of a class."""
    kind, _, of = name.partition(" ")
    if of and kind == "ap50":
        return f"Average precision of masks at an IoU of 0.5, of {of} alone."
    return MEANINGS.get(name, "")


def _rate_section(losses: Sequence[Mapping[str, float]]) -> list[Section]:
    steps, rates = _column(losses, "learning_rate")
    if not rates:
        return []
    drawing = line_chart(steps, rates, label="learning rate by step", top=1.05 * max(rates))
    text = f"{max(rates):.2g} at its peak, {rates[-1]:.2g} at last. It rises at first, then falls to a hundredth."
    return [Section("rate", "The learning rate", figures(figure(drawing, text)))]


def _epoch_section(epochs: Sequence[Epoch]) -> Section:
    terms, names = list(epochs[0].losses), list(epochs[-1].scores)
    header = ["Step", "learning rate", *terms, *names]
    rows = [
        [
            f"{e.step:,}",
            f"{e.learning_rate:.2g}",
            *(_cell(e.losses, name) for name in terms),
            *(_cell(e.scores, name) for name in names),
        ]
        for e in epochs
    ]
    return Section("epochs", "Epoch by epoch", table(header, rows, numbers=header))


def _column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    found = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]


def _cell(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.3f}" if name in values else ""


def _duration(losses: Sequence[Mapping[str, float]]) -> str:
    minutes = sum(row.get("seconds", 0.0) for row in losses) / 60
    return f"{minutes / 60:.1f} hours of learning" if minutes >= 90 else f"{minutes:.0f} minutes of learning"

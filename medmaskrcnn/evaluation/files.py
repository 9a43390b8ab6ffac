"""Write an evaluation to disk: ``evaluation.json``, ``cases.csv``, ``froc.png`` and ``evaluation.html``.

The fields are described in ``docs/evaluation.md``. Repeating an evaluation gives the same figures, except for the
seconds that cases took.
"""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medmaskrcnn.evaluation.evaluate import Evaluation
from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
from medmaskrcnn.evaluation.metrics.froc import LUNA16_POINTS
from medmaskrcnn.evaluation.metrics.summary import (
    FROC_CURVE_POINTS,
    CaseFigures,
    ClassFigures,
    length_unit,
    size_ranges_for,
)
from medmaskrcnn.evaluation.page import evaluation_html
from medmaskrcnn.evaluation.subgroups import Subgroup
from medmaskrcnn.report.result_document import to_json
from medmaskrcnn.system.files import write_bytes
from medmaskrcnn.system.tables import TableWriter
from medmaskrcnn.system.version import __version__

SCHEMA_VERSION = 1
_MOST_CURVES = 10


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Write all four files; the folder is made if it is missing.

    Returns:
        The path of each file by its name.

    Raises:
        OutputError: if a file cannot be written.
    """
    out = Path(folder)
    plot = froc_plot(evaluation)
    contents = {
        "evaluation.json": to_json(evaluation_document(evaluation)).encode(),
        "cases.csv": cases_table(evaluation).encode(),
        "froc.png": plot,
        "evaluation.html": evaluation_html(evaluation, plot).encode(),
    }
    return {name: write_bytes(out / name, content) for name, content in contents.items()}


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    name, sha256 = evaluation.model or (None, None)
    precision, engine = evaluation.runtime or (None, None)
    dataset, split = evaluation.dataset or (None, None)
    ranges = size_ranges_for([case.masks.grid for case in evaluation.cases])
    return {
        "schema_version": SCHEMA_VERSION,
        "software": f"medmaskrcnn {__version__}",
        "research_use_only": True,
        "model": {"name": name, "sha256": sha256 or None, "precision": precision, "engine": engine},
        "dataset": {"name": dataset, "split": split},
        "operating_score": evaluation.score,
        "settings": asdict(evaluation.settings),
        "length_unit": length_unit(evaluation.cases),
        "size_ranges": {
            "measure": ranges.measure,
            **{n: [a, b] for n, a, b in zip(ranges.names, ranges.low, ranges.high, strict=True)},
        },
        "n_cases": len(evaluation.cases),
        "n_patients": len({case.patient for case in evaluation.cases}),
        "class_names": list(evaluation.class_names),
        "not_judged": list(evaluation.not_judged),
        "only_predicted": list(evaluation.only_predicted),
        "only_reference": list(evaluation.only_reference),
        "spelt_otherwise": dict(evaluation.spelt_otherwise),
        "overall": _figures(evaluation.overall),
        "classes": {name: _figures(table) for name, table in evaluation.classes.items()},
        "subgroups": [_subgroup(one) for one in evaluation.subgroups],
        "froc_false_positives_per_case": list(FROC_CURVE_POINTS),
        "cases": [_case(case, evaluation) for case in evaluation.worst_first],
        "missing_predictions": list(evaluation.missing),
        "notes": list(evaluation.notes),
        "failed": [asdict(case) for case in evaluation.failed],
    }


def _subgroup(one: Subgroup) -> dict[str, Any]:
    return {
        "label": one.label,
        "value": one.value,
        "n_cases": one.cases,
        "n_patients": one.patients,
        "overall": _figures(one.overall),
        "classes": {name: _figures(table) for name, table in one.classes.items()},
    }


def _figures(table: ClassFigures) -> dict[str, Any]:
    def plain(estimates: dict[str, Estimate]) -> dict[str, Any]:
        return {name: asdict(one) for name, one in estimates.items()}

    curve = None if table.froc_curve is None else [asdict(point) for point in table.froc_curve]
    return {
        "references": table.references,
        "predictions": table.predictions,
        "empty_cases": table.empty_cases,
        "mask": plain(table.mask),
        "box": plain(table.box),
        "outline": plain(table.outline),
        "froc_curve": curve,
    }


def _case(case: CaseFigures, evaluation: Evaluation) -> dict[str, Any]:
    return {
        **_counts(case),
        "class_dice": dict(zip(evaluation.class_names, case.class_dice, strict=True)),
        "objects": [asdict(one) for one in case.objects],
    }


def _counts(case: CaseFigures) -> dict[str, Any]:
    outcomes = [one.outcome for one in case.objects]
    dice = [one.dice for one in case.objects if one.outcome != "false positive"]
    return {
        "id": case.id,
        "patient": case.patient,
        "error": case.error,
        "references": len(dice),
        "found": outcomes.count("found"),
        "missed": outcomes.count("missed"),
        "false_positives": outcomes.count("false positive"),
        "dice_with_missed": sum(dice) / len(dice) if dice else None,
        "seconds": case.seconds,
    }


def cases_table(evaluation: Evaluation) -> str:
    """``cases.csv``: one row per case, the worst first; cells of undefined figures are empty."""
    text = io.StringIO()
    writer = TableWriter(text)
    rows = [_counts(case) for case in evaluation.worst_first]
    writer.writerow([*rows[0], *(f"class_dice {name}" for name in evaluation.class_names)])
    for row, case in zip(rows, evaluation.worst_first, strict=True):
        values = [*row.values(), *case.class_dice]
        writer.writerow("" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in values)
    return text.getvalue()


def froc_plot(evaluation: Evaluation) -> bytes:
    """``froc.png``: the FROC curve over all classes with its interval, and one per class if there are few."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.add_subplot()
    curves = [(name, t.froc_curve) for name, t in evaluation.classes.items() if t.froc_curve is not None]
    if 1 < len(curves) <= _MOST_CURVES:
        for name, curve in curves:
            axes.plot(FROC_CURVE_POINTS, [p.value or 0.0 for p in curve], linewidth=1, label=name)
    if evaluation.overall.froc_curve is not None:
        band = evaluation.overall.froc_curve
        label = "mean of the classes" if len(curves) > 1 else curves[0][0]
        axes.plot(FROC_CURVE_POINTS, [p.value or 0.0 for p in band], color="black", linewidth=2, label=label)
        limits = [(x, p.low, p.high) for x, p in zip(FROC_CURVE_POINTS, band, strict=True) if p.low is not None]
        if limits:
            x, low, high = zip(*limits, strict=True)
            level = f"{100 * evaluation.settings.level:g} % over patients"
            axes.fill_between(x, low, high, color="black", alpha=0.12, linewidth=0, label=level)
        axes.legend(loc="lower right", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(LUNA16_POINTS, [f"{p:g}" for p in LUNA16_POINTS])
    axes.set_xlim(FROC_CURVE_POINTS[0], FROC_CURVE_POINTS[-1])
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.set_xlabel("false positives per case")
    axes.set_ylabel(f"share of objects found (IoU >= {evaluation.settings.froc_iou:g})")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()

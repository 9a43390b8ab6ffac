"""How well a model finds and outlines what a manifest's labels hold.

    python benchmarks/accuracy.py abdomen-mr runs/abdomen/manifest.json --split test --json result.json

Prints one row a class: objects, share found (IoU of the masks), Dice (a missed object counts 0), median error of
volume, false positives a scan. ``--min-diameter`` leaves small objects out of the share found (not out of the false
positives): the diameter is that of the ball of equal volume.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import medmaskrcnn
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.metrics.matching import CaseSummary, match_case
from medmaskrcnn.metrics.reference import reference_instances
from medmaskrcnn.pipeline import LoadedModel, load_model, segment
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.training.manifest import Manifest, ManifestCase, read_manifest


def evaluate_case(
    model: LoadedModel, manifest: Manifest, case: ManifestCase, *, score: float | None, iou: float, min_diameter: float
) -> dict[str, Any]:
    """One case: what was found of each class, and how well."""
    volume = read_volume(manifest.path(case.image))
    labels = read_volume(manifest.path(case.label))
    truth = reference_instances(
        labels.array[0].astype(np.int64),
        labels.grid,
        {i.value: i.class_name for i in case.instances},
        part_of={i.value: i.part_of for i in case.instances if i.part_of is not None},
        class_names=manifest.class_names,
    )
    started = time.monotonic()
    result = segment(volume, model, score=score)
    seconds = time.monotonic() - started
    summary = match_case(result.instances, truth, iou_threshold=iou)
    return {
        "case": case.id,
        "seconds": round(seconds, 2),
        "classes": _by_class(summary, result.instances, truth, min_diameter),
    }


def _by_class(
    summary: CaseSummary, found: Instances, truth: Instances, min_diameter: float
) -> dict[str, dict[str, list[float]]]:
    rows: dict[str, dict[str, list[float]]] = {
        name: {"dice": [], "volume_error": [], "false_positives": [0.0]} for name in truth.class_names
    }
    for match in summary.matches:
        if _diameter(truth, match.reference) >= min_diameter:
            rows[match.class_name]["dice"].append(match.dice)
            rows[match.class_name]["volume_error"].append(match.volume_error)
    for i in summary.missed:
        if _diameter(truth, i) >= min_diameter:
            rows[truth.class_names[truth.labels[i]]]["dice"].append(0.0)
    for i in summary.false_positives:
        rows[found.class_names[found.labels[i]]]["false_positives"][0] += 1
    return rows


def _diameter(instances: Instances, i: int) -> float:
    volume = np.count_nonzero(instances.masks[i]) * instances.grid.voxel_volume
    return float((6 * volume / math.pi) ** (1 / 3))


def summarise(cases: list[dict[str, Any]], class_names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Means over all objects of a class (Dice, found) and over scans (false positives)."""
    table = {}
    for name in class_names:
        dice, errors, false = (
            [x for case in cases for x in case["classes"][name][key]]
            for key in ("dice", "volume_error", "false_positives")
        )
        if dice:
            table[name] = {
                "objects": len(dice),
                "found": sum(d > 0 for d in dice) / len(dice),
                "dice": statistics.mean(dice),
                "median_volume_error": statistics.median(errors) if errors else math.nan,
                "median_absolute_volume_error": statistics.median(map(abs, errors)) if errors else math.nan,
                "false_positives_per_scan": sum(false) / len(cases),
            }
    return table


def main(
    model: Annotated[str, typer.Argument(help="Name of a shipped model or a model file.")],
    manifest_path: Annotated[Path, typer.Argument(metavar="MANIFEST")],
    split: Annotated[str, typer.Option(help="Split of the manifest.")] = "test",
    score: Annotated[float | None, typer.Option(help="Score threshold; the model's own by default.")] = None,
    iou: Annotated[float, typer.Option(help="An object is found from this IoU on.")] = 0.5,
    min_diameter: Annotated[float, typer.Option(help="Smallest object to count as one to find, mm.")] = 0.0,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure a model on a split of a manifest."""
    torch.set_num_threads(threads)
    loaded = load_model(model)
    manifest = read_manifest(manifest_path)
    chosen = [case for case in manifest.cases if case.split == split]
    if not chosen:
        raise typer.BadParameter(f"{manifest_path} has no case in split {split!r}")
    cases = [
        evaluate_case(loaded, manifest, case, score=score, iou=iou, min_diameter=min_diameter)
        for case in track(chosen, description=f"{manifest.name} {split}")
    ]
    table = summarise(cases, manifest.class_names)
    shown = Table(title=f"{loaded.settings.card.name} on {len(cases)} cases of {manifest.name}, IoU >= {iou}")
    for heading in ("class", "objects", "found", "Dice", "volume error", "|volume error|", "false positives/scan"):
        shown.add_column(heading, justify="left" if heading == "class" else "right")
    for name, row in table.items():
        count, *figures = row.values()
        shown.add_row(name, f"{count:.0f}", *(f"{x:.3f}" for x in figures))
    Console().print(shown)
    seconds = [case["seconds"] for case in cases]
    typer.echo(f"seconds a case: median {statistics.median(seconds):.1f}, largest {max(seconds):.1f}")
    if json_path:
        document = {
            "software": f"medmaskrcnn {medmaskrcnn.__version__}",
            "model": loaded.settings.card.name,
            "model_sha256": loaded.sha256,
            "manifest": manifest.name,
            "split": split,
            "iou": iou,
            "min_diameter_mm": min_diameter,
            "threads": threads,
            "summary": table,
            "cases": cases,
        }
        json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

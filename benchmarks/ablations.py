"""The ablations that made Mask R-CNN (He et al. 2017, table 2), on medical images: one command, one table.

    python benchmarks/ablations.py DATA runs/ablations --steps 1500

DATA holds ``nuclei/`` and ``Task04_Hippocampus/``. Each row is the plan that ships for its data, with one block a
stage, and with a few values changed, trained for the same number of steps from the same seed on all but the test cases,
and scored on those:

- RoIAlign or RoIPool on a map of stride 16 (``c4``) and of stride 32 (``c5``): mask AP75;
- one stride-16 map (``c4``, masks of 14 x 14) or a pyramid;
- masks by a sigmoid per class or by a softmax over classes (on the hippocampus: one class has nothing to compete with);
- with or without the mask branch: box AP;
- loss terms of equal weight, or weighted so that each had the same share of the equal run's loss.

Each row leaves its run in the folder; finished ones are not run again, broken-off ones go on, so it may be called in
pieces (``--rows``).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ablation_networks import build_ablation, load_ablation
from machine import machine

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import choose_cases, evaluate
from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.training.plan import Plan, read_plan
from medmaskrcnn.training.records import LOSSES, read_table
from medmaskrcnn.training.run import train
from medmaskrcnn.training.trainer import StepReport
from medmaskrcnn.training.training_run import CHECKPOINT, LAST
from medmaskrcnn_datasets.folders import instances_dataset
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.splits import read_splits

_SPLITS = Path(__file__).parent / "splits"
_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_LIGHT = MetricSettings(surfaces=False, replicates=200, max_detections=(1, 10, 1000))
_RESULT = "result.json"
_ONE_BLOCK = {"model.backbone.name": "light", "model.backbone.channels": None}
_C4 = {"model.backbone.pyramid": "c4", "model.roi.box_size": 14}
_C5 = {"model.backbone.pyramid": "c5"}
_POOL = {"model.roi.pooler": "pool"}
_PARTS = ("Anterior", "Posterior")
_HIPPOCAMPUS = {"model.class_names": _PARTS, "inference.one_per_scan_classes": _PARTS}  # as the data set names them


@dataclass(frozen=True)
class Row:
    """One network of the table.

    Attributes:
        name: Of the row, and of its folder.
        what: For people.
        plan: It is a change of this plan that ships.
        changes: Values by dotted path.
        balance_like: Weight the terms of the loss by what they were in the run of this row.
    """

    name: str
    what: str
    plan: str = "nuclei"
    changes: dict[str, Any] = field(default_factory=dict)
    balance_like: str | None = None


ROWS = (
    Row("fpn", "FPN, RoIAlign, equal weights"),
    Row("c4-align", "C4 (stride 16), RoIAlign", changes=_C4),
    Row("c4-pool", "C4 (stride 16), RoIPool", changes=_C4 | _POOL),
    Row("c5-align", "C5 (stride 32), RoIAlign", changes=_C5),
    Row("c5-pool", "C5 (stride 32), RoIPool", changes=_C5 | _POOL),
    Row("fpn-no-masks", "FPN without masks", changes={"model.with_masks": False}),
    Row("fpn-balanced", "FPN, balanced weights", balance_like="fpn"),
    Row("sigmoid", "hippocampus, sigmoid per class", "hippocampus-mr", _HIPPOCAMPUS),
    Row("softmax", "hippocampus, softmax", "hippocampus-mr", _HIPPOCAMPUS | {"model.roi.mask_activation": "softmax"}),
)


def plan_of(row: Row, folder: Path, options: argparse.Namespace) -> Plan:
    """The row's plan."""
    values = read_plan(row.plan).model_dump()
    run = {"steps": options.steps, "seed": options.seed, "hours": None}
    changes = {f"train.{key}": value for key, value in run.items()} | _ONE_BLOCK | row.changes
    if row.balance_like:
        changes |= {f"model.loss.{k}": v for k, v in balanced(folder / row.balance_like / LOSSES).items()}
    for path, value in changes.items():
        *groups, last = path.split(".")
        inner = values
        for group in groups:
            inner = inner[group]
        inner[last] = value
    return Plan.model_validate(values)


def balanced(losses: Path) -> dict[str, float]:
    """Weights under which every term would have had the same share of that run's loss, whose sum they keep."""
    if not losses.exists():
        raise SystemExit(f"balanced weights are made from {losses}, which is not there: run that row first")
    table = read_table(losses)
    names = [name for name in table[0] if name not in ("step", "total", "learning_rate", "seconds")]
    means = {name: sum(row[name] for row in table) / len(table) for name in names}
    share = sum(means.values()) / len(means)
    return {name: round(share / mean, 4) for name, mean in means.items()}


def manifests(data: Path, folder: Path) -> dict[str, Manifest]:
    """The labelled data of each plan."""
    nuclei = instances_dataset(
        data / "nuclei", folder / "data" / "nuclei", class_name="nucleus", splits=read_splits(_SPLITS / "nuclei.json")
    )
    hippocampus = msd_dataset(
        data / "Task04_Hippocampus", folder / "data" / "hippocampus", splits=read_splits(_SPLITS / "hippocampus.json")
    )
    return {"nuclei": read_manifest(nuclei), "hippocampus-mr": read_manifest(hippocampus)}


def run(row: Row, manifest: Manifest, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one row, or go on with it."""
    plan, own = plan_of(row, folder, options), folder / row.name
    train(
        manifest,
        plan,
        own,
        check=False,
        splits=("train", "val"),  # nothing is chosen: the last weights are scored
        resume=(own / CHECKPOINT).exists(),
        build=build_ablation,
        cache=folder / "data" / row.plan / "cache",
        workers=options.workers,
        on_event=_tell,
    )
    cases = [case.id for case in choose_cases(manifest, "test", None)][: options.cases]
    found = evaluate(load_ablation(own / LAST), manifest, cases=cases, settings=_LIGHT)
    tables = {"mask": found.overall.mask, "box": found.overall.box}
    return {
        "row": row.name,
        "what": row.what,
        **conditions(options),
        "loss_weights": plan.model.loss.model_dump(),
        "cases": len(found.cases),
        **{f"{kind}_{name}": _numbers(table[name]) for kind, table in tables.items() for name in _FIGURES},
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What two results must share to stand in one table."""
    return {"steps": options.steps, "seed": options.seed, "at_most_cases": options.cases}


def _numbers(figure: Estimate) -> list[float | None]:
    return [figure.value, figure.low, figure.high]


def _tell(event: object) -> None:
    if isinstance(event, StepReport) and event.step % 50 == 0:
        print(f"  step {event.step}, loss {event.total:.3f}, {event.seconds:.2f} s", flush=True)


def table_lines(results: list[dict[str, Any]]) -> Iterator[str]:
    """The table in Markdown; a model without masks has figures of boxes alone."""
    columns = [f"{kind}_{name}" for kind in ("mask", "box") for name in _FIGURES]
    yield "| network | " + " | ".join(c.replace("_", " ") for c in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for result in results:
        hidden = "mask" if result["row"] == "fpn-no-masks" else "none"
        cells = ["" if c.startswith(hidden) or result[c][0] is None else f"{result[c][0]:.3f}" for c in columns]
        yield f"| {result['what']} | " + " | ".join(cells) + " |"


def main() -> None:
    """Make the rows that are missing, print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in ROWS]
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", nargs="+", choices=names, default=names)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="score so many test cases only, for a trial")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = manifests(options.data, options.folder)
    for row in ROWS:
        path = options.folder / row.name / _RESULT
        if row.name in options.rows and not path.exists():
            print(row.what, flush=True)
            result = run(row, data[row.plan], options.folder, options)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    paths = [options.folder / row.name / _RESULT for row in ROWS]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if any(result[k] != v for result in results for k, v in conditions(options).items()):
        raise SystemExit(f"{options.folder} holds results of other conditions; take another folder")
    print("\n".join(table_lines(results)))
    if options.json:
        document = {**machine(), **conditions(options), "rows": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

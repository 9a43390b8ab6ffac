"""Head and neck learnt from the complete cases alone, and with the partly labelled ones: Dice of each organ.

    python benchmarks/partly_head_neck.py DATA/HeadNeckCT runs/partly --steps 6000 --minutes 50

Two trainings with one plan and the same number of steps, on the complete training cases of
``benchmarks/splits/headneck-ct.json``, and on these and the partly labelled ones, in which one or two organs were never
drawn. The same command goes on where it was stopped, for ``--minutes`` at a time, first with one training, then with
the other; a checkpoint tells how long each has been trained. When both are over the test cases are segmented, and Dice
of each organ is printed for both and written to ``WORK/dice.json``.

Both have one objectness for all organs (``--objectness shared``), which learns background from the complete cases, or
one for each (``per_class``, what the planner chooses for partly labelled data).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from parts import deadline, train_in_parts

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
from medmaskrcnn.training.plan import Plan, plan_text, read_plan
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn.training.training_run import CHECKPOINT
from medmaskrcnn_datasets import msd_dataset
from medmaskrcnn_datasets.splits import read_splits

SPLIT = Path(__file__).parent / "splits" / "headneck-ct.json"
RUNS = ("complete", "with_partly_labelled")


def prepare(data: Path, work: Path, steps: int, objectness: str) -> tuple[Manifest, Plan]:
    """Manifest of all cases and the plan of both trainings, made once."""
    plan_file = work / "plan.yaml"
    if not plan_file.exists():
        manifest = read_manifest(msd_dataset(data, work / "data", splits=read_splits(SPLIT)))
        report = check_manifest(manifest)
        report.raise_if_bad()
        plan, reasons = make_plan(manifest, report.case_fingerprints, memory_gb=8)
        rpn = plan.model.rpn.model_copy(update={"objectness": objectness})
        changes = {"model": plan.model.model_copy(update={"rpn": rpn}), "train": plan.train.of_length(steps=steps)}
        plan_file.write_text(plan_text(plan.model_copy(update=changes), reasons))
    return read_manifest(work / "data" / "manifest.json"), read_plan(plan_file)


def cases_of(manifest: Manifest, run: str) -> Manifest:
    """The manifest with the cases of one training; validation and test are the same in both."""
    chosen = [
        case
        for case in manifest.cases
        if case.split != "train" or run != RUNS[0] or set(manifest.annotated_in(case)) == set(manifest.class_names)
    ]
    return manifest.model_copy(update={"cases": tuple(chosen)})


def trained_hours(run: Path) -> float:
    """What the training's own clock shows."""
    progress = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)["progress"]
    return float(progress["seconds"]) / 3600


def text(figure: Estimate) -> str:
    """A figure with its interval."""
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}" + (f" ({figure.low:.3f}-{figure.high:.3f})" if figure.low is not None else "")


def main() -> None:
    """Train in parts; print the table when both trainings are over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="HeadNeckCT")
    parser.add_argument("work", type=Path, help="folder of manifest, plan and trainings")
    parser.add_argument("--steps", type=int, default=6000, help="updates of each training: --steps 6000")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes of training: --minutes 50")
    parser.add_argument(
        "--objectness", choices=("shared", "per_class"), default="per_class", help="--objectness shared"
    )
    asked = parser.parse_args()
    ends = deadline(asked.minutes)
    manifest, plan = prepare(asked.data, asked.work, asked.steps, asked.objectness)
    models = {}
    for run in RUNS:
        own = cases_of(manifest, run)
        print(f"{run}: {sum(case.split == 'train' for case in own.cases)} training cases")
        model = train_in_parts(own, plan, asked.work / run, cache=asked.work / "cache", ends=ends)
        if model is None:
            return
        models[run] = model
    found = {run: evaluate(str(model), manifest, split="test").classes for run, model in models.items()}
    hours = {run: trained_hours(asked.work / run) for run in RUNS}
    print(f"{'Dice on test cases':24}" + "".join(f"{run:>32}" for run in RUNS))
    for organ in manifest.class_names:
        print(f"{organ:24}" + "".join(f"{text(found[run][organ].outline['class_dice']):>32}" for run in RUNS))
    print(f"{'hours of training':24}" + "".join(f"{hours[run]:32.2f}" for run in RUNS))
    dice = {run: {organ: vars(t.outline["class_dice"]) for organ, t in found[run].items()} for run in RUNS}
    (asked.work / "dice.json").write_text(json.dumps({"steps": plan.train.steps, "hours": hours, **dice}, indent=1))


if __name__ == "__main__":
    main()

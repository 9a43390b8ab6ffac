"""Trains AbdomenCT, LungCT and HeadNeckCT as one network of twenty classes, of which no case is annotated for all.

    python benchmarks/joined_ct.py DATA runs/joined-ct --steps 6000
    python benchmarks/joined_ct.py DATA runs/joined-ct --steps 6000 --minutes 50     in parts: repeat until it is done

``DATA`` holds the three folders in the layout of the Medical Segmentation Decathlon; ``cases.csv`` of HeadNeckCT says
which organs were drawn. Each becomes a manifest with the splits of ``benchmarks/splits``, the three are joined, the
planner makes the plan, and at the end the test cases are evaluated, each for the classes that were annotated in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from parts import deadline, train_in_parts

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.training.plan import plan_text, read_plan
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn_datasets import join_datasets, msd_dataset
from medmaskrcnn_datasets.splits import read_splits

SPLITS = Path(__file__).parent / "splits"
SETS = {"AbdomenCT": "abdomen-ct", "LungCT": "lungs-ct", "HeadNeckCT": "headneck-ct"}


ABSENT = {
    "HeadNeckCT": (
        "spleen", "right kidney", "left kidney", "gallbladder", "liver", "stomach", "inferior vena cava",
        "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland",
    ),
    "AbdomenCT": ("brainstem", "parotid_right", "parotid_left", "mandible"),
    "LungCT": ("brainstem",),
}  # fmt: skip
"""Classes that a set does not label and that no scan of it can show: annotated there, with no object."""

SHARES = (0.55, 0.15, 0.30)
"""How often each set is drawn: AbdomenCT has most of the classes and few cases."""


def joined_manifest(data: Path, work: Path, only: int | None) -> Path:
    """The manifest of the three sets; with ``only``, of so many training cases of each and one of test."""
    manifests = []
    for name, split in SETS.items():
        made = msd_dataset(data / name, work / name, splits=read_splits(SPLITS / f"{split}.json"))
        if only is not None:
            document = json.loads(made.read_text())
            training = [case for case in document["cases"] if case["split"] == "train"][:only]
            document["cases"] = training + [case for case in document["cases"] if case["split"] == "test"][:1]
            made.write_text(json.dumps(document))
        manifests.append(made)
    joined = join_datasets(manifests, work / "joined.json", name="CT from jaw to pelvis", shares=SHARES)
    document = json.loads(joined.read_text())
    for case in document["cases"]:
        name = next(name for name in SETS if name in Path(case["image"]).parts)
        case["annotated"] = [one for one in document["class_names"] if one in {*case["annotated"], *ABSENT[name]}]
    joined.write_text(json.dumps(document))
    read_manifest(joined)  # refuses what does not fit
    return joined


def main() -> None:
    """Make the manifest and the plan, train, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the three data sets")
    parser.add_argument("work", type=Path, help="folder of the manifests, the plan and the training")
    parser.add_argument("--steps", type=int, default=6000, help="updates of the weights: --steps 6000")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes of training: --minutes 50")
    parser.add_argument(
        "--plan", type=Path, help="instead of the planner's: --plan medmaskrcnn/training/plans/organs-ct.yaml"
    )
    parser.add_argument("--only", type=int, help="so many training cases of each set, to try it out: --only 2")
    asked = parser.parse_args()
    ends = deadline(asked.minutes)
    plan_file = asked.work / "plan.yaml"
    if not plan_file.exists():
        manifest = read_manifest(joined_manifest(asked.data, asked.work, asked.only))
        report = check_manifest(manifest)
        report.raise_if_bad()
        if asked.plan is None:
            plan, reasons = make_plan(manifest, report.case_fingerprints, memory_gb=8)
            loop = plan.train.of_length(steps=asked.steps)
            plan_file.write_text(plan_text(plan.model_copy(update={"train": loop}), reasons))
        else:
            plan_file.write_text(asked.plan.read_text())
    manifest, plan = read_manifest(asked.work / "joined.json"), read_plan(plan_file)
    print(f"{len(manifest.cases)} cases, {len(plan.model.class_names)} classes, objectness {plan.model.rpn.objectness}")
    model = train_in_parts(manifest, plan, asked.work / "run", cache=asked.work / "cache", ends=ends)
    if model is None:
        return
    found = evaluate(str(model), manifest, split="test")
    for name, table in found.classes.items():
        dice = table.outline["class_dice"].value
        print(f"{name:30}{table.references:4} objects, Dice {'undefined' if dice is None else f'{dice:.3f}'}")


if __name__ == "__main__":
    main()

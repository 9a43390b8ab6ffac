"""What the planner makes of each data set: plan, reasons, seconds per step and epochs, beside nnU-Net's plan.

    MEDMASKRCNN_DATA=data python benchmarks plans plans.json --sets Task04_Hippocampus AbdomenCT \
        --nnunet Task04_Hippocampus=nnunet/hippocampus/nnUNetPlans.json

A step is timed on samples of the first two training cases, at one thread; the fastest of three counts, after one to
warm up. Of nnU-Net only its plan file is read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from machine import machine

from medmaskrcnn.data.cases import prepare_cases
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest, read_manifest
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.build import build_model
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn.training.samples import Samples
from medmaskrcnn.training.trainer import Trainer, make_fabric
from medmaskrcnn_datasets.convert import to_manifest

SETS = ("Task04_Hippocampus", "AbdomenMR", "SarcomaMR", "nuclei", "HeadNeckCT", "AbdomenCT", "LungCT")
REASONS = (
    "model.spatial_dims",
    "preprocess.spacing_mm",
    "model.backbone.strides",
    "model.roi.canonical_size",
    "model.anchors",
    "model.anchors.sizes",
    "augment.patch",
    "train.batch",
    "train.steps",
)
STEPS = 3


def row(name: str, manifest: Manifest, nnunet: Path | None, *, timed: bool) -> dict[str, Any]:
    """All that is told of one data set."""
    plan, reasons = make_plan(manifest, check_manifest(manifest, workers=0).case_fingerprints)
    training = sum(case.split in FOR_TRAINING for case in manifest.cases)
    return {
        "set": name,
        "training_cases": training,
        "dims": 2.5 if plan.model.context_slices else plan.model.spatial_dims,
        "spacing_mm": plan.preprocess.spacing_mm,
        "strides": plan.model.backbone.strides,
        "patch": plan.augment.patch,
        "batch": plan.train.batch,
        "anchors": plan.model.anchors.sizes,
        "canonical": [plan.model.roi.canonical_size, plan.model.roi.canonical_level],
        "steps": plan.train.steps,
        "epochs": round(plan.train.steps * plan.train.batch / training, 1),
        "seconds_per_step": round(seconds_per_step(manifest, plan), 2) if timed else None,
        "reasons": {path: reasons[path] for path in REASONS},
        "nnunet": None if nnunet is None else nnunet_plan(nnunet),
    }


def seconds_per_step(manifest: Manifest, plan: Plan) -> float:
    """Wall time of the fastest of a few updates, samples included."""
    torch.manual_seed(0)
    cases = [case for case in manifest.cases if case.split in FOR_TRAINING][:2]
    with tempfile.TemporaryDirectory() as folder:
        files = prepare_cases(manifest, cases, plan.settings, Path(folder), workers=0)
        samples = Samples(files, plan)
        size = plan.train.batch
        passes = ([samples[i * size + k] for k in range(size)] for i in cycle(range(STEPS + 1)))
        trainer = Trainer(build_model(plan.model), plan, make_fabric(plan.train, torch.device("cpu")))
        return min(trainer.learn(passes).seconds for _ in range(STEPS + 1))


def nnunet_plan(path: Path) -> dict[str, Any]:
    """Spacing, patch, batch and strides of nnU-Net's full-resolution configuration, 3D where there is one."""
    configurations = json.loads(path.read_text(encoding="utf-8"))["configurations"]
    chosen = configurations.get("3d_fullres") or configurations["2d"]
    steps = chosen["architecture"]["arch_kwargs"]["strides"]
    coarsest = [math.prod(axis) for axis in zip(*steps, strict=True)]
    return {
        "spacing_mm": chosen["spacing"],
        "patch": chosen["patch_size"],
        "batch": chosen["batch_size"],
        "coarsest_stride": coarsest,
        "voxels_a_step": math.prod(chosen["patch_size"]) * chosen["batch_size"],
    }


def main() -> None:
    """Write the table as JSON, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--nnunet", nargs="*", default=[], metavar="SET=nnUNetPlans.json")
    parser.add_argument("--no-time", action="store_true", help="do not time steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plans = dict(pair.split("=", 1) for pair in options.nnunet)
    rows = []
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            try:
                manifest = read_manifest(to_manifest(Path(os.environ["MEDMASKRCNN_DATA"]) / name, folder))
                beside = Path(plans[name]) if name in plans else None
                rows.append(row(name, manifest, beside, timed=not options.no_time))
            except MedMaskRCNNError as error:
                print(f"{name}: {error}")
                continue
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "reasons"}), flush=True)
        for path, reason in rows[-1]["reasons"].items():
            print(f"    {path}: {reason}", flush=True)
    options.out.write_text(json.dumps({**machine("monai"), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What ``suggest`` is worth: nuclei labelled in its order against labelled at random, AP after 20 and 40 images.

    python benchmarks/suggest_nuclei.py --data DATA/nuclei --json benchmarks/results/suggest-nuclei.json

For each seed a first network learns from ten images drawn at random. Then either ``suggest`` ranks the others of a
pool (the split ``train``) or chance does; ten more are labelled, a network is trained anew on all twenty, and so on to
forty. Every network has the same plan, the same steps and the same seed; AP is measured on images of the split
``test``. Trainings and figures are kept in the folder: the same command goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.training.plan import read_plan
from medmaskrcnn.training.run import train
from medmaskrcnn.training.suggest.suggest import suggest
from medmaskrcnn.training.training_run import CHECKPOINT
from medmaskrcnn_datasets.folders import instances_dataset
from medmaskrcnn_datasets.splits import read_splits

METHODS = ("random", "suggest")
_SPLITS = Path(__file__).parent / "splits" / "nuclei.json"
_FIRST, _SIZES = 10, (20, 40)
_QUICK = MetricSettings(surfaces=False, replicates=0)


def trained(manifest: Manifest, ids: list[str], run: Path, options: argparse.Namespace, seed: int) -> Path:
    """The model that has learnt from these cases."""
    marked = run / "cases.json"
    if marked.exists() and json.loads(marked.read_text()) == ids and (run / "done").exists():
        return run / "last.safetensors"
    chosen = tuple(c.model_copy(update={"split": "train"}) for c in manifest.cases if c.id in set(ids))
    plan = read_plan(options.plan)
    loop = plan.train.of_length(steps=options.steps).model_copy(update={"seed": seed})
    train(
        manifest.model_copy(update={"cases": chosen}),
        plan.model_copy(update={"train": loop}),
        run,
        check=False,
        workers=options.workers,
        resume=(run / CHECKPOINT).exists(),
        cache=options.folder / "cache",
    )
    marked.write_text(json.dumps(ids))
    (run / "done").touch()
    return run / "last.safetensors"


def figures(model: Path, manifest: Manifest, file: Path, tested: list[str]) -> dict[str, float]:
    """AP at IoU 0.5 and 0.75 of a model on the test images; read from the file where it stands."""
    if not file.exists():
        found = evaluate(
            model, manifest, cases=tested, settings=_QUICK, options=SegmentOptions(allow_out_of_domain=True)
        )
        values = {name: found.overall.mask[name].value or 0.0 for name in ("ap50", "ap75")}
        file.write_text(json.dumps(values))
    return dict(json.loads(file.read_text()))


def one_course(
    method: str, seed: int, manifest: Manifest, pool: list[str], tested: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """AP after each number of images, labelled by one method."""
    random = np.random.default_rng(seed)
    shuffled = [pool[i] for i in random.permutation(len(pool))]
    labelled, rest = shuffled[:_FIRST], shuffled[_FIRST:]
    paths = {case.id: str(manifest.path(case.images[0])) for case in manifest.cases}
    model = trained(manifest, labelled, options.folder / f"first-{seed}", options, seed)
    course: dict[str, Any] = {}
    for size in _SIZES:
        more = size - len(labelled)
        if method == "suggest":
            order_file = options.folder / f"{method}-{seed}-{size}-order.json"
            if not order_file.exists():
                found = suggest(model, [paths[i] for i in rest], labelled=[paths[i] for i in labelled])
                by_path = {os.path.realpath(paths[i]): i for i in rest}
                order = [by_path[os.path.realpath(case.scan)] for case in found.cases]
                order_file.write_text(json.dumps(order))
            rest = json.loads(order_file.read_text())
        labelled, rest = [*labelled, *rest[:more]], rest[more:]
        run = options.folder / f"{method}-{seed}-{size}"
        model = trained(manifest, labelled, run, options, seed)
        course[str(size)] = figures(model, manifest, options.folder / f"{method}-{seed}-{size}.json", tested)
        objects = sum(len(case.instances) for case in manifest.cases if case.id in set(labelled))
        course[str(size)]["objects"] = objects
        print(method, "seed", seed, size, "images:", course[str(size)], flush=True)
    return course


def main() -> None:
    """Label, train and measure; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder nuclei")
    parser.add_argument("--folder", type=Path, default=Path("suggest-nuclei"))
    parser.add_argument("--plan", default="nuclei")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--pool", type=int, default=200, help="images of the split train to choose from")
    parser.add_argument("--tested", type=int, default=60, help="images of the split test")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "data"
    manifest = read_manifest(instances_dataset(options.data, data, class_name="nucleus", splits=read_splits(_SPLITS)))
    pool = [case.id for case in manifest.cases if case.split == "train"][: options.pool]
    tested = [case.id for case in manifest.cases if case.split == "test"][: options.tested]
    courses = {
        method: {str(seed): one_course(method, seed, manifest, pool, tested, options) for seed in options.seeds}
        for method in METHODS
    }
    for size in map(str, _SIZES):
        for name in ("ap50", "ap75"):
            means = {m: np.mean([c[size][name] for c in courses[m].values()]) for m in METHODS}
            print(size, "images", name, ", ".join(f"{m} {v:.3f}" for m, v in means.items()))
    if options.json:
        how = {"steps": options.steps, "pool": len(pool), "tested": len(tested)}
        options.json.write_text(json.dumps({**machine(), **how, "courses": courses}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How long it takes to draw a training sample, and the network's own share of a training step; two trees in turn.

    python benchmarks/sample_throughput.py nuclei=DATA/nuclei=nuclei mr=DATA/AbdomenMR=abdomen-mr --json samples.json
    python benchmarks/sample_throughput.py ct=DATA/HeadNeckCT=ct.yaml --other ../before --json samples.json

Each argument is ``NAME=DATA=PLAN``: labelled data in any form that is read, and a plan that both trees can read. Every
tree has a process of its own with one thread; they draw the same samples, a few at a time in turn, so that what else
the machine does hits both. Seconds are those of the processor (``time.process_time``), not of the wall. Freed memory is
kept where the tree's own workers keep it. The network's share is that of a step in the processor time of step and
samples.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_CASES = 24
_ROUNDS = 6


def child(name: str, data: Path, plan_name: str, folder: Path) -> None:
    """Answer lines of standard input: ``draw FIRST COUNT`` with processor seconds, ``step COUNT`` likewise."""
    import torch
    from lightning_fabric import Fabric

    from medmaskrcnn.data.cases import prepare_cases
    from medmaskrcnn.data.manifest import read_manifest
    from medmaskrcnn.models.build import build_model
    from medmaskrcnn.system.memory import allow_retaining, retain_freed_memory
    from medmaskrcnn.training import run
    from medmaskrcnn.training.plan import read_plan
    from medmaskrcnn.training.samples import Samples
    from medmaskrcnn.training.trainer import Trainer
    from medmaskrcnn_datasets.convert import to_manifest
    from medmaskrcnn_datasets.folders import instances_dataset

    torch.set_num_threads(1)
    plan = read_plan(plan_name)
    if (data / "masks").is_dir():
        manifest = read_manifest(instances_dataset(data, folder / "data", class_name=plan.model.class_names[0]))
    else:
        manifest = read_manifest(to_manifest(data, folder / "data"))
    cases = [case for case in manifest.cases if (case.split or "train") == "train"]
    chosen = cases[:: max(1, len(cases) // _CASES)][:_CASES]
    samples = Samples(prepare_cases(manifest, chosen, plan.settings, folder / "cache"), plan)
    if hasattr(run, "retain_freed_memory"):
        allow_retaining()
        retain_freed_memory().__enter__()
    trainer = Trainer(build_model(plan.model), plan, Fabric(accelerator="cpu", devices=1))
    print("ready", plan.train.batch, flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        began = time.process_time()
        if what == "draw":
            first, count = map(int, numbers)
            for index in range(first, first + count):
                samples[index]
        else:
            drawn = [samples[i] for i in range(plan.train.batch)]
            trainer.learn(iter([drawn]))
            began = time.process_time()
            for _ in range(int(numbers[0])):
                trainer.learn(iter([drawn]))
        print((time.process_time() - began) / int(numbers[-1]), flush=True)


class Tree:
    """A tree's process.

    Args:
        root: Folder of the repository.
        job: ``NAME=DATA=PLAN``.
        folder: For prepared cases.
    """

    def __init__(self, root: Path, job: str, folder: Path) -> None:
        paths = [str(root), *(str(root / part) for part in ("kernels", "datasets"))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--child", str(folder), job]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.batch = int(self._answer().split()[1])

    def ask(self, what: str, *numbers: int) -> float:
        """Processor seconds of one of the things done."""
        assert self.process.stdin
        print(what, *numbers, file=self.process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a tree's process ended; its message is above")
        return line


def measure(job: str, trees: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a sample and of a step in each tree."""
    name = job.split("=")[0]
    open_trees = {key: Tree(root, job, options.folder / key / name) for key, root in trees.items()}
    draws: dict[str, list[float]] = {key: [] for key in trees}
    steps: dict[str, list[float]] = {key: [] for key in trees}
    for tree in open_trees.values():
        tree.ask("draw", 0, 2)
    for turn in range(_ROUNDS):
        for key, tree in open_trees.items():
            draws[key].append(tree.ask("draw", turn * options.samples, options.samples))
    for _ in range(options.steps):
        for key, tree in open_trees.items():
            steps[key].append(tree.ask("step", 1))
    row: dict[str, Any] = {}
    for key, tree in open_trees.items():
        drawn, step = statistics.mean(draws[key]), statistics.median(steps[key])
        row[key] = {
            "samples_per_second": round(1 / drawn, 2),
            "ms_per_sample": [round(1000 * value, 1) for value in draws[key]],
            "seconds_per_step": round(step, 3),
            "network_share": round(step / (step + tree.batch * drawn), 3),
        }
        tree.end()
    if "other" in trees:
        row["times_as_fast"] = round(statistics.mean(draws["other"]) / statistics.mean(draws["this"]), 2)
    return row


def main() -> None:
    """Measure each data set; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="NAME=DATA=PLAN")
    parser.add_argument("--other", type=Path, help="another checkout of the repository, to compare with")
    parser.add_argument("--samples", type=int, default=8, help="in each of six rounds")
    parser.add_argument("--steps", type=int, default=2, help="measured, after one to warm up")
    parser.add_argument("--folder", type=Path, default=Path("sample-throughput"), help="for prepared cases")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, data, plan = options.jobs[0].split("=")
        child(name, Path(data), plan, options.child)
        return
    from machine import machine

    trees = {"this": Path(__file__).parents[1], **({"other": options.other} if options.other else {})}
    results = {}
    for job in options.jobs:
        results[job.split("=")[0]] = row = measure(job, trees, options)
        print(job.split("=")[0], json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({**machine(), "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

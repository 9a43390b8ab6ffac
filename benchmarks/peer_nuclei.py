"""The same minutes on the same nuclei: ours beside torchvision's ``maskrcnn_resnet50_fpn``, both from scratch.

    python benchmarks/peer_nuclei.py DATA/nuclei runs/peers --minutes 40 --seeds 0 1 2

One split, machine, start (convolutions and heads of one random network), stream of augmented samples, optimiser,
schedule, moving average of the weights, bf16 with channels_last. What differs is the network around the ResNet-50-FPN:
ours normalises by groups, and has the anchors, matching and sampling of the plan; torchvision's is as it comes, except
that it may find as many objects in an image. Each picks its score threshold on the validation images. The figures are
TP / (TP + FP + FN) of the masks, mean over the test images.

Each network and seed leaves its figures in the folder, and is not run again while they are there: the runs may be made
in pieces, ``--peers medmaskrcnn --seeds 1`` for one of them. The table is printed from what is there. The weights lie
beside them (``.pth``); ``speed.py --weights`` takes torchvision's.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch import nn
from torch.utils.data import DataLoader
from torchvision_peer import TorchvisionPeer, same_start

from medmaskrcnn.data.cases import prepare_cases
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import Evaluation, choose_cases, evaluate
from medmaskrcnn.evaluation.metrics.counts import data_science_bowl_table
from medmaskrcnn.evaluation.metrics.match_detections import match_detections
from medmaskrcnn.evaluation.metrics.sizes import COCO_AREAS
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.settings import BackboneSettings
from medmaskrcnn.training.checkpoint import TrainingProgress
from medmaskrcnn.training.plan import Plan, read_plan
from medmaskrcnn.training.samples import ResumableBatchSampler, Sample, Samples
from medmaskrcnn.training.schedule import Clock, advance, begin, is_over, schedule
from medmaskrcnn.training.trainer import newest_share
from medmaskrcnn_datasets.folders import instances_dataset
from medmaskrcnn_datasets.splits import read_splits

PEERS = ("medmaskrcnn", "torchvision")
FIGURES = ("dsb50", "dsb75", "dsb90")
_SPLITS = Path(__file__).parent / "splits" / "nuclei.json"
_SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds to choose from
_LIGHT = MetricSettings(surfaces=False, replicates=1, max_detections=(1, 10, 1000))
_ENDLESS = 10**9  # passes; time decides


def plan_for(name: str, seed: int, minutes: float) -> Plan:
    """The plan of the nuclei with a ResNet-50-FPN of torchvision's widths."""
    plan = read_plan(name)
    model = plan.model.model_copy(
        update={
            "backbone": BackboneSettings(name="resnet50"),
            "roi": plan.model.roi.model_copy(update={"box_hidden": 1024, "mask_channels": 256}),
        }
    )
    train = plan.train.model_copy(update={"seed": seed, "hours": minutes / 60})
    return plan.model_copy(update={"model": model, "train": train})


def train(network: nn.Module, files: list[Path], plan: Plan, workers: int) -> tuple[nn.Module, TrainingProgress]:
    """Learn for the plan's hours, waiting for samples included; gives the moving average of the weights."""
    settings, progress, clock = plan.train, TrainingProgress(), Clock()
    begin(progress, settings, now=clock.seconds())
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = _batches(files, plan, workers)
    while not is_over(progress, settings):
        began = time.monotonic()
        _update(
            network,
            optimizer,
            next(batches),
            settings.learning_rate * schedule(progress, settings),
            settings.grad_clip_norm,
        )
        share = newest_share(progress.step, settings)
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                kept.lerp_(new, share) if kept.is_floating_point() else kept.copy_(new)
        advance(progress, settings, step_seconds=time.monotonic() - began, now=clock.seconds())
        if progress.step % 20 == 0:
            print(f"  step {progress.step}, {progress.seconds / 60:.1f} minutes", flush=True)
    return average.eval(), progress


def _batches(files: list[Path], plan: Plan, workers: int) -> Iterator[list[Sample]]:
    batches = ResumableBatchSampler(_ENDLESS, plan.train.batch, first=0)
    loader: DataLoader[Any] = DataLoader(
        Samples(files, plan), batch_sampler=batches, num_workers=workers, collate_fn=list
    )
    return iter(loader)


def _update(
    network: nn.Module, optimizer: torch.optim.Optimizer, samples: list[Sample], rate: float, clip: float
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    images = torch.stack([s.image for s in samples]).contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = network.losses(images, [s.targets for s in samples], seeds=[s.seed for s in samples])  # type: ignore[operator]
    torch.stack([term.float() for term in terms.values()]).sum().backward()
    nn.utils.clip_grad_norm_(network.parameters(), clip, error_if_nonfinite=True)
    optimizer.step()


def scored(network: nn.Module, plan: Plan, manifest: Manifest, most: int | None) -> dict[str, float]:
    """Figures on the test images at the score threshold that was best on the validation images."""
    loaded = LoadedModel(network, plan.settings, "", torch.device("cpu"))  # type: ignore[arg-type]

    def figures(split: str, scores: tuple[float, ...]) -> list[dict[str, float]]:
        cases = [case.id for case in choose_cases(manifest, split, None)][:most]
        found = evaluate(loaded, manifest, cases=cases, settings=_LIGHT, allow_out_of_domain=True)
        return [_bowl(found, score) for score in scores]

    validated = figures("val", _SCORES)
    best = int(np.argmax([sum(table[name] for name in FIGURES[:2]) for table in validated]))
    return {"score": _SCORES[best], **figures("test", (_SCORES[best],))[0]}


def _bowl(found: Evaluation, score: float) -> dict[str, float]:
    if found.failed:
        raise SystemExit(f"{len(found.failed)} images failed: {found.failed[0]}")
    judged = match_detections([case.masks for case in found.cases], found.class_names, ranges=COCO_AREAS)
    table = data_science_bowl_table(judged, np.ones((1, len(found.cases))), score=score)
    return {name: float(table[name][0, 0]) for name in FIGURES}


def run(peer: str, seed: int, manifest: Manifest, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network and score it."""
    plan = plan_for(options.plan, seed, options.minutes)
    files = prepare_cases(
        manifest,
        choose_cases(manifest, "train", None),
        plan.settings,
        options.folder / "cache",
        workers=options.workers,
    )
    torch.manual_seed(seed)
    theirs = TorchvisionPeer(plan.model.class_names, detections_per_img=plan.model.detection.detections_per_img)
    network = theirs if peer == "torchvision" else same_start(plan.model, theirs)
    trained, progress = train(network, files, plan, options.workers)
    torch.save(getattr(trained, "network", trained).state_dict(), options.folder / f"{peer}-{seed}.pth")
    return {
        "peer": peer,
        "seed": seed,
        **conditions(options),
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(progress.step * plan.train.batch / progress.seconds, 3),
        **scored(trained, plan, manifest, options.images),
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What two results must share to stand in one table."""
    return {"minutes": options.minutes, "threads": options.threads, "plan": options.plan, "images": options.images}


def summary(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and range over the seeds of each network."""
    table: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        own = [result for result in results if result["peer"] == peer]
        for name in (*FIGURES, "steps") if own else ():
            values = [result[name] for result in own]
            row = {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}
            table.setdefault(peer, {"seeds": sorted(r["seed"] for r in own)})[name] = row
    return table


def main() -> None:
    """Make the runs that are missing, print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with images/ and masks/")
    parser.add_argument("folder", type=Path, help="where results, prepared images and the manifest go")
    parser.add_argument("--minutes", type=float, default=40.0, help="of training, each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--plan", default="nuclei", help="a plan that ships, or a file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples")
    parser.add_argument("--images", type=int, help="score so many of each split only, for a trial")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    manifest = read_manifest(
        instances_dataset(options.data, options.folder / "data", class_name="nucleus", splits=read_splits(_SPLITS))
    )
    for seed in options.seeds:
        for peer in options.peers:
            path = options.folder / f"{peer}-{seed}.json"
            if not path.exists():
                print(f"{peer}, seed {seed}", flush=True)
                path.write_text(json.dumps(run(peer, seed, manifest, options), indent=1) + "\n", encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.folder.glob("*-*.json"))]
    others = [r for r in results if any(r[k] != v for k, v in conditions(options).items())]
    if others:
        raise SystemExit(f"{options.folder} holds results of other conditions: {others[0]}; take another folder")
    table = summary(results)
    for peer, row in table.items():
        figures = ", ".join(
            f"{n} {v['mean']:.3f} ({v['least']:.3f}-{v['most']:.3f})" for n, v in row.items() if n in FIGURES
        )
        print(f"{peer}: {figures}; {row['steps']['mean']:.0f} steps; seeds {row['seeds']}")
    document = {**machine("torchvision"), **conditions(options), "table": table, "runs": results}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

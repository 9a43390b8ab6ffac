"""Training steps beside torchvision's: images a second on the same batch, in one run.

    python benchmarks/training_throughput.py --json benchmarks/results/training-throughput.json

Both networks are a ResNet-50 with an FPN and the same heads; as many proposals, anchors and regions are drawn. A step
is the losses of a batch, their gradients, and AdamW's update. Steps alternate, so that what else the machine does
hits both; the median counts. Freed memory stays with the process for both. torchvision learns
BatchNorm along, as it does from scratch; ours has GroupNorm, or frozen constants as fine-tuning has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor, nn
from torchvision_peer import TorchvisionPeer, resnet50_settings

from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.system.memory import allow_retaining, retain_freed_memory

_WARM_UP = 2


def batch_of(images: int, side: int, objects: int, device: torch.device) -> tuple[Tensor, list[Targets]]:
    """Grey images repeated in three channels, each with bright discs whose masks are the targets."""
    random = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pictures, targets = [], []
    for _ in range(images):
        centres = torch.rand((objects, 2), generator=random) * (side - 40) + 20
        radii = torch.rand(objects, generator=random) * 10 + 6
        distance = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
        masks = (distance < radii[:, None, None] ** 2).to(torch.uint8) * 255
        boxes = torch.cat([centres - radii[:, None], centres + radii[:, None]], dim=1)
        noise = torch.randn((side, side), generator=random) * 0.3
        pictures.append((masks.amax(0) / 255 + noise).expand(3, side, side))
        targets.append(
            Targets(boxes.to(device), torch.zeros(objects, dtype=torch.int64, device=device), masks.to(device))
        )
    return torch.stack(pictures).to(device, memory_format=torch.channels_last), targets


def step_of(network: nn.Module, images: Tensor, targets: list[Targets], precision: str) -> Callable[[], None]:
    """A training step of a network on a batch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    seeds = list(range(len(images)))
    kind = images.device.type

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        half = torch.autocast(kind, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with half:
            loss = torch.stack(list(network.losses(images, targets, seeds=seeds).values())).sum()  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize()

    return step


def measure(device: torch.device, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step of each network, steps taken in turn."""
    images, targets = batch_of(options.batch, options.side, options.objects, device)
    torch.manual_seed(0)
    peer = TorchvisionPeer(("nucleus",), detections_per_img=100)
    peer.network.rpn._pre_nms_top_n = peer.network.rpn._post_nms_top_n = {"training": 1000, "testing": 1000}
    networks: dict[str, nn.Module] = {"torchvision, BatchNorm": peer}
    for norm, name in (("group", "GroupNorm"), ("frozen_batch", "frozen constants")):
        networks[f"medmaskrcnn, {name}"] = build_model(resnet50_settings(("nucleus",), channels=3, norm=norm))
    steps = {}
    for name, network in networks.items():
        network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        steps[name] = step_of(network, images, targets, precision)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(_WARM_UP + options.steps):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn >= _WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    reference = statistics.median(seconds["torchvision, BatchNorm"])
    return {
        name: {
            "images_per_second": round(options.batch / statistics.median(values), 3),
            "seconds_per_step": [round(v, 3) for v in values],
            "times_torchvision": round(reference / statistics.median(values), 3),
        }
        for name, values in seconds.items()
    }


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--objects", type=int, default=20, help="in each image")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    allow_retaining()
    measured_on = machine("torchvision")
    torch.set_num_threads(options.threads)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    results = {}
    for device in devices:
        for precision in options.precision:
            with retain_freed_memory():
                found = measure(device, precision, options)
            results[f"{device.type} {precision}"] = found
            for name, row in found.items():
                print(f"{device.type} {precision}  {name:32} {row['images_per_second']:8.3f} images/s "
                      f"({row['times_torchvision']:.2f} times torchvision's)", flush=True)  # fmt: skip
    document = {
        **measured_on,
        "batch": [options.batch, 3, options.side, options.side],
        "objects_per_image": options.objects,
        "steps": options.steps,
        "results": results,
        "threads": options.threads,
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

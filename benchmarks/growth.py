"""How time and memory grow: with slices, with instances, with voxels.

    python benchmarks/growth.py benchmarks/results/growth.json --plot benchmarks/results/growth.png
    python benchmarks/growth.py benchmarks/results/growth.json --series slices instances

Each point is a process of its own, so that its peak memory is its own; it is measured once to warm up, then some times,
and the median counts. Points that the file holds are not measured again: the runs may be made in pieces.

- slices: 1 to 64 slices of 256 x 256 through a light 2D network;
- instances: 1 to 500 objects in one slice of 512 x 512 (so many detections are kept, whatever the random network sees);
- voxels: cubes of 64 to 512 voxels a side through a light 3D network, in tiles of 128.

Networks have random weights. ``exponent`` is the slope from point to point on logarithmic axes: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from matplotlib.figure import Figure

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.runtime.precision import choose_precision
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    InferenceSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RPNSettings,
)
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.memory import allow_retaining

POINTS = {
    "slices": (1, 2, 4, 8, 16, 32, 64),
    "instances": (1, 5, 20, 50, 100, 200, 500),
    "voxels": (64, 128, 256, 384, 512),
}
LABELS = {"slices": "slices of 256 x 256", "instances": "instances in 512 x 512", "voxels": "voxels a side, cube"}
_STRIDES_3D = ((2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32))
_TILE = 128


def model_for(series: str, size: int) -> LoadedModel:
    """A light network with random weights, ready to run."""
    dims = 3 if series == "voxels" else 2
    kept = size if series == "instances" else 20
    settings = ModelFileSettings(
        card=ModelCard(name="random"),
        model=ModelSettings(
            spatial_dims=dims,  # type: ignore[arg-type]
            class_names=("object",),
            backbone=BackboneSettings(
                name="light", fpn_channels=64, **({"strides": _STRIDES_3D} if dims == 3 else {}),  # type: ignore[arg-type]
            ),
            anchors=AnchorSettings(sizes=tuple((s,) * dims for s in (12, 24, 48, 96, 192))),
            rpn=RPNSettings(post_nms_top_n=1000 if series == "instances" else 200, nms_iou=0.9),
            detection=DetectionSettings(score_thresh=0.0, nms_iou=1.0, detections_per_img=kept),
        ),
        preprocess=PreprocessSettings(
            percentiles=(1, 99), pad_multiple=(16, 32, 32) if dims == 3 else (32, 32), orientation="as_stored"
        ),
        inference=InferenceSettings(tile=(_TILE,) * 3, score=0.0),
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_model(settings.model).eval()
    device = torch.device("cpu")
    return LoadedModel(network.run_in(choose_precision("auto", device)), settings, "", device)


def scan_for(series: str, size: int) -> Volume:
    """Noise of the size of a point."""
    shape = {"slices": (size, 256, 256), "instances": (1, 512, 512), "voxels": (size,) * 3}[series]
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return Volume(values[None], Grid(shape, np.diag([1.0, 1.0, 1.0, 1.0])))


def measure(series: str, size: int, repeats: int, threads: int) -> dict[str, Any]:
    """One point, in this process."""
    torch.set_num_threads(threads)
    allow_retaining()  # as the command line
    model, scan = model_for(series, size), scan_for(series, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        found = segment(scan, model)
        if turn or size >= max(POINTS["voxels"]) // 2:  # large ones take minutes: the first time counts too
            seconds.append(time.perf_counter() - began)
        if sum(seconds) > 60:
            break
    return {
        "size": size,
        "seconds": round(statistics.median(seconds), 4),
        "all_seconds": [round(s, 4) for s in seconds],
        "instances": len(found.candidates),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_mb_before": round(before),
    }


def in_own_process(series: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """One point in a fresh process."""
    command = [sys.executable, __file__, "-", "--point", series, str(size)]
    command += ["--repeats", str(options.repeats), "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT")), None)
    if line is None:
        raise SystemExit(f"{series} {size} failed: {done.stderr[-2000:]}")
    return dict(json.loads(line.removeprefix("RESULT")))


def exponents(series: str, rows: list[dict[str, Any]]) -> list[float | None]:
    """Slope of time from each point to the next, per voxel where sides are doubled."""
    power = 3 if series == "voxels" else 1
    slopes = [
        round(math.log(b["seconds"] / a["seconds"]) / (power * math.log(b["size"] / a["size"])), 2)
        for a, b in pairwise(rows)
    ]
    return [None, *slopes]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Every series in Markdown."""
    lines = []
    for series, rows in results.items():
        lines += [
            f"| {LABELS[series]} | s | exponent | found | peak MB | MB before |",
            "|---:|---:|---:|---:|---:|---:|",
        ]
        for row, slope in zip(rows, exponents(series, rows), strict=True):
            shown = "" if slope is None else f"{slope:.2f}"
            lines.append(
                f"| {row['size']} | {row['seconds']:.3f} | {shown} | {row['instances']} | {row['peak_mb']} | "
                f"{row['peak_mb_before']} |"
            )
        lines.append("")
    return "\n".join(lines)


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time and memory of each series, beside a line of slope 1."""
    figure = Figure(figsize=(4.2 * len(results), 6), layout="constrained")
    panels = figure.subplots(2, len(results), squeeze=False)
    for column, (series, rows) in enumerate(results.items()):
        sizes = np.array([row["size"] for row in rows], dtype=float)
        work = sizes**3 if series == "voxels" else sizes
        seconds = [row["seconds"] for row in rows]
        time_axis, memory_axis = panels[0, column], panels[1, column]
        time_axis.loglog(sizes, seconds, "o-", label="measured")
        time_axis.loglog(sizes, seconds[-1] * work / work[-1], "--", color="gray", label="linear")
        time_axis.set(title=LABELS[series], ylabel="seconds")
        time_axis.legend(fontsize="small")
        memory_axis.semilogx(sizes, [row["peak_mb"] for row in rows], "o-", label="peak")
        memory_axis.semilogx(sizes, [row["peak_mb_before"] for row in rows], "--", label="with scan and model")
        memory_axis.set(ylabel="MB", xlabel=series, ylim=(0, None))
        memory_axis.legend(fontsize="small")
        for axis in (time_axis, memory_axis):
            axis.set_xticks(sizes, [str(row["size"]) for row in rows])
            axis.minorticks_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure what is missing, keep every point, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="where points are kept")
    parser.add_argument("--series", nargs="+", choices=list(POINTS), default=list(POINTS))
    parser.add_argument("--largest", type=int, default=10**9, help="leave out larger points")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print("RESULT" + json.dumps(measure(options.point[0], int(options.point[1]), options.repeats, options.threads)))
        return
    document: dict[str, Any] = {"results": {}}
    if options.json.exists():
        document = json.loads(options.json.read_text(encoding="utf-8"))
    document |= {**machine(), "threads": options.threads}
    results: dict[str, list[dict[str, Any]]] = document["results"]
    for series in options.series:
        rows = results.setdefault(series, [])
        for size in POINTS[series]:
            if size > options.largest or any(row["size"] == size for row in rows):
                continue
            print(f"{series} {size}", flush=True)
            rows.append(in_own_process(series, size, options))
            rows.sort(key=lambda row: row["size"])
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()

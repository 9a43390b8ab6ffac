"""A CT of 512 x 512 x 300 from a DICOM folder to result files: time and memory by stage, beside a floor.

    python benchmarks/whole_ct.py --json benchmarks/results/whole-ct.json
    python benchmarks/whole_ct.py --model my.safetensors --engine openvino --slices 300 --threads 2

The series is computed once and kept (``--series``). Each run is a process of its own: it loads the model, runs a few
slices to warm up, then segments the folder and writes files. The floor is what reading cannot go below, a plain
``pixel_array`` of every file in one process, plus the floating-point operations of backbone, FPN and RPN over what a
large matrix product reaches here in the same precision. Nothing else is counted in it: no head, no mask, no file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine
from pydicom import dcmread
from reading import write_series

import medmaskrcnn
from medmaskrcnn.export.write import write_result
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.models.runtime.profile import Profile, gemm_rate, torch_dtype
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.memory import allow_retaining

_MB = 1e6
_WARM_SLICES = 8


def first_slices(volume: Volume, count: int) -> Volume:
    """The beginning of a scan."""
    grid = replace(volume.grid, shape=(count, *volume.grid.shape[1:]))
    return replace(volume, array=volume.array[:, :count], grid=grid)


def run_once(series: Path, options: argparse.Namespace) -> dict[str, Any]:
    """From the folder to files, in this process."""
    torch.set_num_threads(options.threads)
    allow_retaining()  # as the command line
    model = medmaskrcnn.load_model(
        options.model, device=options.device, precision=options.precision, engine=options.engine
    )
    volume = read_volume(series)
    medmaskrcnn.segment(first_slices(volume, min(_WARM_SLICES, options.slices)), model, allow_out_of_domain=True)
    del volume
    profile = Profile(model.device)
    watched = replace(model, watch=profile.watch)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out, profile.listening(model.network):
        profile.progress("read", 0.0)
        read = read_volume(series)
        result = medmaskrcnn.segment(read, watched, allow_out_of_domain=True, progress=profile.progress)
        profile.progress("write", 0.0)
        write_result(result, read, out)
        profile.end()
    seconds = time.perf_counter() - began
    flops, rate = profile.dense_flops(model.network), gemm_rate(model.device, torch_dtype(model.network.precision))
    return {
        "seconds": round(seconds, 3),
        "stages": {cost.name: round(cost.seconds, 3) for cost in profile.costs},
        "peak_mb": {cost.name: round((cost.peak_bytes or 0) / _MB) for cost in profile.costs},
        "candidates": len(result.candidates),
        "gflop": round(flops / 1e9, 1),
        "gflop_per_second": round(rate / 1e9, 1),
        "precision": model.precision,
        "engine": model.engine,
    }


def decode_seconds(series: Path) -> float:
    """A plain loop over the files, the second time: what decoding alone takes."""
    for turn in range(2):
        began = time.perf_counter()
        for file in sorted(series.iterdir()):
            _ = dcmread(file).pixel_array
        if turn:
            return time.perf_counter() - began
    raise AssertionError


def child(series: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a fresh process."""
    command = [sys.executable, __file__, "--child", str(series), *sys.argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT")), None)
    if line is None:
        raise SystemExit(f"the run failed: {done.stderr[-2000:]}")
    return dict(json.loads(line.removeprefix("RESULT")))


def summary(runs: list[dict[str, Any]], decode: float) -> dict[str, Any]:
    """Medians over the runs, and the floor."""
    floors = [decode + run["gflop"] / run["gflop_per_second"] for run in runs]
    names = list(runs[0]["stages"])
    return {
        "seconds": round(median(run["seconds"] for run in runs), 3),
        "stages": {name: round(median(run["stages"].get(name, 0.0) for run in runs), 3) for name in names},
        "peak_mb": {name: max(run["peak_mb"].get(name, 0) for run in runs) for name in names},
        "decode_seconds": round(decode, 3),
        "floor_seconds": round(median(floors), 3),
        "times_floor": round(median(run["seconds"] / floor for run, floor in zip(runs, floors, strict=True)), 3),
        "peak_mb_of_all": max(max(run["peak_mb"].values()) for run in runs),
    }


def print_table(found: dict[str, Any]) -> None:
    """Markdown: the stages, the whole and the floor."""
    print("| stage | s | peak MB |\n|---|---:|---:|")
    for name, seconds in found["stages"].items():
        print(f"| {name} | {seconds:.2f} | {found['peak_mb'][name]} |")
    print(f"| all | {found['seconds']:.2f} | {found['peak_mb_of_all']} |")
    print(
        f"\nfloor {found['floor_seconds']:.2f} s, decoding {found['decode_seconds']:.2f} s of it; "
        f"{found['times_floor']} times the floor"
    )


def main() -> None:
    """Write the series where it is missing, run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="phantom-ct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--syntax", default="1.2.840.10008.1.2.1", help="transfer syntax; uncompressed by default")
    parser.add_argument("--series", type=Path, default=Path(tempfile.gettempdir()) / "medmaskrcnn-whole-ct")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    measured_on = machine()
    if options.child:
        print("RESULT" + json.dumps(run_once(options.child, options)))
        return
    series = options.series / f"{options.slices}x{options.side}-{options.syntax}"
    if not series.exists():
        options.series.mkdir(parents=True, exist_ok=True)
        write_series(series, options.syntax, options.slices, options.side)
    runs = [child(series, options) for _ in range(options.repeats)]
    found = summary(runs, decode_seconds(series))
    print_table(found)
    if options.json:
        document = {
            **measured_on,
            **found,
            "shape": [options.slices, options.side, options.side],
            "model": Path(options.model).name,
            "threads": options.threads,
            "runs": runs,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

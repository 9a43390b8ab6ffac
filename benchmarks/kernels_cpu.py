"""How fast the portable operators are on this CPU, each beside its nearest relative in the same process.

    python benchmarks/kernels_cpu.py --json kernels_cpu.json

Pairs are measured in turn, A B A B ..., so that whatever else runs on the machine slows both; medians are printed with
their ratio. 2D: torchvision's ``roi_align`` and ``nms``. 3D NMS: MONAI's. 3D RoIAlign has no relative: times alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from machine import machine
from torch import Tensor

from medmaskrcnn_kernels import batched_nms, multiscale_roi_align, nms, roi_align

IMAGE = 512
CHANNELS = 256
BOXES = 1000
STRIDES = (4, 8, 16, 32)


def in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call after one warm-up, the calls taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def some_boxes(count: int, extent: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Boxes within the image, sizes spread evenly on a logarithmic scale from 1/32 of it to the whole."""
    image = torch.tensor(extent, dtype=torch.float32)
    size = image * 2 ** (-5 * torch.rand(count, 1, generator=draw)) * (0.5 + 0.5 * torch.rand(count, len(extent)))
    low = torch.rand(count, len(extent), generator=draw) * (image - size)
    return torch.cat([low, low + size], 1)


def pull(maps: list[Tensor], align: Callable[[], Tensor]) -> None:
    """Forward and backward: ones into every output."""
    for m in maps:
        m.grad = None
    pooled = align()
    pooled.backward(torch.ones_like(pooled))


def pair_2d(bins: int, repeats: int, *, multiscale: bool) -> list[dict[str, Any]]:
    """RoIAlign of 1,000 boxes, 256 channels: on one map of stride 4, or on the pyramid of a 512 x 512 image."""
    draw = torch.Generator().manual_seed(0)
    boxes, index = some_boxes(BOXES, (IMAGE, IMAGE), draw), torch.zeros(BOXES, dtype=torch.int64)
    strides = STRIDES if multiscale else STRIDES[:1]
    maps = [torch.randn(1, CHANNELS, IMAGE // s, IMAGE // s, generator=draw) for s in strides]
    xy = boxes[:, [1, 0, 3, 2]]
    pooler = torchvision.ops.MultiScaleRoIAlign([str(s) for s in strides], bins, 2)
    named = {str(s): m for s, m in zip(strides, maps, strict=True)}

    def ours() -> Tensor:
        if multiscale:
            return multiscale_roi_align(maps, boxes, index, output_size=bins, strides=strides, aligned=False)
        return roi_align(maps[0], boxes, index, output_size=bins, spatial_scale=1 / strides[0])

    def theirs() -> Tensor:
        if multiscale:
            return pooler(named, [xy], [(IMAGE, IMAGE)])
        return torchvision.ops.roi_align(maps[0], [xy], bins, 1 / strides[0], 2, True)

    torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=1e-4)
    name = f"{'multiscale_' if multiscale else ''}roi_align 2D, {BOXES} boxes x {CHANNELS} x {bins} x {bins}"
    forward = in_turn({"ours": ours, "torchvision": theirs}, repeats)
    for m in maps:
        m.requires_grad_()
    both = in_turn({"ours": lambda: pull(maps, ours), "torchvision": lambda: pull(maps, theirs)}, repeats)
    return [{"what": name + ", forward", **forward}, {"what": name + ", forward + backward", **both}]


def alone_3d(count: int, bins: int, repeats: int) -> list[dict[str, Any]]:
    """RoIAlign over a pyramid of 32^3 to 4^3 cells with 64 channels: forward, and forward + backward."""
    draw = torch.Generator().manual_seed(0)
    boxes, index = some_boxes(count, (128,) * 3, draw), torch.zeros(count, dtype=torch.int64)
    maps = [torch.randn(1, 64, *[128 // s] * 3, generator=draw) for s in STRIDES]

    def ours() -> Tensor:
        return multiscale_roi_align(maps, boxes, index, output_size=bins, strides=STRIDES, canonical_size=112)

    name = f"multiscale_roi_align 3D, {count} boxes x 64 x {bins}^3"
    forward = in_turn({"ours": ours}, repeats)
    for m in maps:
        m.requires_grad_()
    both = in_turn({"ours": lambda: pull(maps, ours)}, repeats)
    return [{"what": name + ", forward", **forward}, {"what": name + ", forward + backward", **both}]


def pair_nms(count: int, dims: int, repeats: int, *, crowded: bool) -> dict[str, Any]:
    """NMS at IoU 0.5 of scattered boxes, most of which stay, or of a crowd around 60 objects, most of which go."""
    draw = torch.Generator().manual_seed(0)
    if crowded:
        object_of = torch.randint(0, 60, (count,), generator=draw)
        boxes = some_boxes(60, (IMAGE,) * dims, draw)[object_of] + torch.randn(count, 2 * dims, generator=draw) * 4
        boxes = torch.cat([boxes[:, :dims], torch.maximum(boxes[:, :dims], boxes[:, dims:])], 1)
    else:
        boxes = some_boxes(count, (IMAGE,) * dims, draw)
    scores = torch.rand(count, generator=draw)
    calls: dict[str, Callable[[], Tensor]] = {"ours": lambda: nms(boxes, scores, 0.5)}
    if dims == 2:
        xy = boxes[:, [1, 0, 3, 2]]
        calls["torchvision"] = lambda: torchvision.ops.nms(xy, scores, 0.5)
        assert torch.equal(calls["ours"](), calls["torchvision"]())
    else:
        from monai.data.box_utils import non_max_suppression  # here: the 2D figures need no MONAI

        calls["MONAI"] = lambda: torch.as_tensor(non_max_suppression(boxes, scores, 0.5))
    kept = len(calls["ours"]())
    return {"what": f"nms {dims}D, {count} boxes, {kept} kept", **in_turn(calls, repeats if dims == 2 else 2)}


def nms_by_class(count: int, repeats: int) -> dict[str, Any]:
    """Batched NMS with five classes, as a region proposal network over five levels calls it."""
    draw = torch.Generator().manual_seed(0)
    boxes, scores = some_boxes(count, (IMAGE, IMAGE), draw), torch.rand(count, generator=draw)
    classes = torch.randint(0, 5, (count,), generator=draw)
    xy = boxes[:, [1, 0, 3, 2]]
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: batched_nms(boxes, scores, classes, 0.5),
        "torchvision": lambda: torchvision.ops.batched_nms(xy, scores, classes, 0.5),
    }
    return {"what": f"batched_nms 2D, {count} boxes, 5 classes", **in_turn(calls, repeats)}


def show(row: dict[str, Any]) -> None:
    """One line: milliseconds, and how many times as fast as the relative."""
    times = {name: value for name, value in row.items() if name != "what"}
    text = "  ".join(f"{name} {1e3 * value:8.1f} ms" for name, value in times.items())
    ratios = "".join(f"  x {value / times['ours']:.1f}" for name, value in times.items() if name != "ours")
    print(f"{row['what']:68s} {text}{ratios}", flush=True)


def main() -> None:
    """Run all pairs, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each call; the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    measured_on = machine("torchvision", "monai")
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []

    def keep(*found: dict[str, Any]) -> None:
        for row in found:
            show(row)
            rows.append(row)

    for multiscale in (True, False):
        for bins in (7, 14):
            keep(*pair_2d(bins, arguments.repeats, multiscale=multiscale))
    for count, bins in ((128, 7), (16, 14), (32, 14), (200, 7)):
        keep(*alone_3d(count, bins, arguments.repeats))
    for crowded in (False, True):
        for count in (1000, 2000, 6000):
            keep(pair_nms(count, 2, arguments.repeats, crowded=crowded))
    keep(nms_by_class(5000, arguments.repeats))
    keep(pair_nms(6000, 3, arguments.repeats, crowded=False))
    if arguments.json:
        seconds = {"unit": "s", "statistic": "median", "repeats": arguments.repeats, "threads": arguments.threads}
        arguments.json.write_text(json.dumps({**measured_on, **seconds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

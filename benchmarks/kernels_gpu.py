"""How fast the Triton operators are on this GPU, beside torchvision, a plain kernel and the memory's own speed.

    python benchmarks/kernels_gpu.py --json kernels_gpu.json

Medians of CUDA events after warm-up, pairs in turn, in one process; under eight minutes. Six questions: (a)
``multiscale_roi_align`` against torchvision's pooler, ResNet-50-FPN maps of 8 images of 512 x 512, 1,000 boxes each;
(b) its time over the time that its bytes need at the copy bandwidth measured here; (c) 3D against a kernel with one
thread an output element and an atomic backward; (d) our backward, which has a fixed order, against that atomic one;
(e) 3D NMS of 6,000 boxes; (f) memory errors: run the tests under ``compute-sanitizer`` with ``--sanitize`` (needs the
CUDA toolkit's program of that name).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
import triton
import triton.language as tl
from machine import machine
from torch import Tensor

from medmaskrcnn_kernels import implementation, multiscale_roi_align, nms

STRIDES = (4, 8, 16, 32)
REPEATS = 20


def in_turn(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call, the calls taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(REPEATS + 3):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if repeat >= 3:
                times[name].append(begin.elapsed_time(end))
    return {name: statistics.median(t) for name, t in times.items()}


def some_boxes(count: int, extent: tuple[int, ...], seed: int = 0) -> Tensor:
    """Boxes within the image, sizes even on a logarithmic scale from 1/32 of it to the whole."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.tensor(extent, dtype=torch.float32)
    size = image * 2 ** (-5 * torch.rand(count, 1, generator=draw))
    size = size * (0.5 + 0.5 * torch.rand(count, len(extent), generator=draw))
    low = torch.rand(count, len(extent), generator=draw) * (image - size)
    return torch.cat([low, low + size], 1).cuda()


def pyramid(images: int, channels: int, extent: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Channels-last maps of strides 4 to 32."""
    layout = torch.channels_last if len(extent) == 2 else torch.channels_last_3d
    maps = [torch.randn(images, channels, *(n // s for n in extent), device="cuda", dtype=dtype) for s in STRIDES]
    return [m.contiguous(memory_format=layout) for m in maps]


def with_backward(maps: list[Tensor], call: Callable[[], Tensor]) -> Callable[[], object]:
    """Forward and backward of ``call`` with respect to ``maps``."""

    def run() -> object:
        pooled = call()
        return torch.autograd.grad(pooled, maps, torch.ones_like(pooled))

    return run


def against_torchvision(dtype: torch.dtype) -> list[dict[str, Any]]:
    """(a) and (b): the pyramid of 8 images, 1,000 boxes each."""
    extent, images, count = (512, 512), 8, 1000
    per_image = [some_boxes(count, extent, seed) for seed in range(images)]
    boxes, index = torch.cat(per_image), torch.arange(images, device="cuda").repeat_interleave(count)
    xy = [b[:, [1, 0, 3, 2]] for b in per_image]
    ours_maps = pyramid(images, 256, extent, dtype)
    theirs_maps = [m.contiguous() for m in ours_maps]
    pooler = torchvision.ops.MultiScaleRoIAlign([str(s) for s in STRIDES], 7, 2)

    def ours() -> Tensor:
        return multiscale_roi_align(ours_maps, boxes, index, output_size=7, strides=STRIDES, aligned=False)

    def theirs() -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            named = {str(s): m for s, m in zip(STRIDES, theirs_maps, strict=True)}
            return pooler(named, xy, [extent] * images)

    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(ours().float(), theirs().float(), atol=tolerance, rtol=tolerance)
    forward = in_turn({"ours": ours, "torchvision": theirs})
    for m in (*ours_maps, *theirs_maps):
        m.requires_grad_()
    both = in_turn({"ours": with_backward(ours_maps, ours), "torchvision": with_backward(theirs_maps, theirs)})
    touched = ours().detach()
    gradients = torch.autograd.grad(ours().float().sum(), ours_maps)
    read = sum(int((g != 0).any(1).sum()) for g in gradients) * 256 * touched.element_size()
    written = touched.numel() * touched.element_size()
    floor = (read + written) / copy_bandwidth() * 1e3
    name = f"multiscale_roi_align, 8 x 1,000 boxes x 256 x 7 x 7, {str(dtype).removeprefix('torch.')}"
    return [
        {"what": f"(a) {name}, forward", **forward},
        {"what": f"(a) {name}, forward + backward", **both},
        {"what": f"(b) {name}, forward over its memory floor", "ours": forward["ours"], "floor": floor},
    ]


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 1 GiB."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    milliseconds = in_turn({"copy": lambda: target.copy_(source)})["copy"]
    return 2 * source.numel() * 4 / (milliseconds / 1e3)


@triton.jit
def _plain(
    maps, values, boxes, sizes, scales, channels, total, BINS: tl.constexpr, BACKWARD: tl.constexpr, BLOCK: tl.constexpr
):
    """One thread an output element, 64 taps each, one isotropic map; backward by atomics: what is compared with."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < total
    bin2, bin1, bin0 = at % BINS, at // BINS % BINS, at // BINS // BINS % BINS
    channel, n = at // BINS // BINS // BINS % channels, at // BINS // BINS // BINS // channels
    result = tl.load(values + at, mask=live & (BACKWARD > 0), other=0.0)
    for k0 in range(2):
        for k1 in range(2):
            for k2 in range(2):
                for corner in range(8):
                    place, share = channel, result * 0 + 0.125
                    for axis in tl.static_range(3):
                        low = tl.load(boxes + n * 6 + axis, mask=live, other=0.0) * scales - 0.5
                        high = tl.load(boxes + n * 6 + 3 + axis, mask=live, other=1.0) * scales - 0.5
                        number = bin0 if axis == 0 else (bin1 if axis == 1 else bin2)
                        sample = k0 if axis == 0 else (k1 if axis == 1 else k2)
                        position = low + (number + (sample + 0.5) / 2) * (high - low) / BINS
                        inside = (position >= -1) & (position <= sizes)
                        position = tl.minimum(tl.maximum(position, 0.0), sizes - 1.0)
                        cell = tl.floor(position).to(tl.int64)
                        upper = (corner >> axis) & 1
                        part = position - cell
                        share *= tl.where(upper == 1, part, 1 - part) * inside.to(tl.float32)
                        place = place * sizes + tl.minimum(cell + upper, sizes - 1)
                    if BACKWARD:
                        tl.atomic_add(maps + place, share * result, mask=live)
                    else:
                        result += share * tl.load(maps + place, mask=live, other=0.0)
    if not BACKWARD:
        tl.store(values + at, result, mask=live)


def plain_forward(feature: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """The plain kernel on one contiguous map ``(1, C, n, n, n)``."""
    pooled = torch.empty(boxes.shape[0], feature.shape[1], bins, bins, bins, device="cuda")
    _plain[(triton.cdiv(pooled.numel(), 256),)](
        feature, pooled, boxes, feature.shape[-1], 1 / stride, feature.shape[1], pooled.numel(),
        BINS=bins, BACKWARD=False, BLOCK=256,
    )  # fmt: skip
    return pooled


def plain_backward(pulled: Tensor, feature: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """Its gradient, by atomic adds."""
    gradient = torch.zeros_like(feature)
    _plain[(triton.cdiv(pulled.numel(), 256),)](
        gradient, pulled, boxes, feature.shape[-1], 1 / stride, feature.shape[1], pulled.numel(),
        BINS=bins, BACKWARD=True, BLOCK=256,
    )  # fmt: skip
    return gradient


def against_plain(bins: int) -> list[dict[str, Any]]:
    """(c) and (d): 3D, 128 boxes x 64 channels, maps of 128^3 voxels at strides 4 to 32."""
    maps, boxes = pyramid(1, 64, (128,) * 3, torch.float32), some_boxes(128, (128,) * 3)
    index = torch.zeros(128, dtype=torch.int64, device="cuda")
    contiguous = [m.contiguous() for m in maps]
    area = (boxes[:, 4] - boxes[:, 1]) * (boxes[:, 5] - boxes[:, 2])
    level = sum((area >= (112 * 2.0 ** (k - 4)) ** 2).long() for k in (3, 4, 5))
    own = [boxes[level == k].contiguous() for k in range(4)]

    def ours() -> Tensor:
        return multiscale_roi_align(maps, boxes, index, output_size=bins, strides=STRIDES, canonical_size=112)

    def plain() -> list[Tensor]:
        return [plain_forward(m, b, bins, s) for m, b, s in zip(contiguous, own, STRIDES, strict=True) if len(b)]

    expected = torch.cat(plain())
    torch.testing.assert_close(torch.cat([ours()[level == k] for k in range(4)]), expected, atol=1e-4, rtol=1e-4)
    forward = in_turn({"ours": ours, "plain": plain})
    for m in maps:
        m.requires_grad_()
    pooled = ours()
    pull = torch.ones_like(pooled)
    pulls = [torch.ones(len(b), 64, bins, bins, bins, device="cuda") for b in own]

    def ours_back() -> object:
        return torch.autograd.grad(pooled, maps, pull, retain_graph=True)

    def plain_back() -> list[Tensor]:
        rows = zip(pulls, contiguous, own, STRIDES, strict=True)
        return [plain_backward(p, m, b, bins, s) for p, m, b, s in rows if len(b)]

    backward = in_turn({"ours": ours_back, "plain": plain_back})
    both = {name: forward[name] + backward[name] for name in forward}
    name = f"3D, 128 boxes x 64 x {bins}^3"
    return [
        {"what": f"(c) {name}, forward", **forward},
        {"what": f"(c) {name}, forward + backward", **both},
        {"what": f"(d) {name}, backward in fixed order, against atomics", **backward},
    ]


def suppression() -> dict[str, Any]:
    """(e): NMS of 6,000 boxes in 3D."""
    boxes, scores = some_boxes(6000, (128,) * 3), torch.rand(6000, device="cuda")
    return {"what": "(e) nms 3D, 6,000 boxes", **in_turn({"ours": lambda: nms(boxes, scores, 0.5)})}


def sanitize() -> int:
    """(f): the operators' tests on the GPU under compute-sanitizer."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        print("(f) compute-sanitizer is not installed: it comes with the CUDA toolkit")
        return 2
    tests = Path(__file__).parents[1] / "tests" / "operators"
    chosen = "any_implementation or gpu"
    suite = [sys.executable, "-m", "pytest", "-q", "-m", chosen, str(tests), "--import-mode=importlib"]
    return subprocess.run([program, "--error-exitcode", "1", *suite], check=False).returncode


def main() -> None:
    """Run all questions, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--sanitize", action="store_true", help="(f) alone")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: this benchmark needs one (benchmarks/kernels_cpu.py is for the CPU)")
    if arguments.sanitize:
        raise SystemExit(sanitize())
    name, reason = implementation("cuda:0")
    if name != "triton":
        raise SystemExit(f"the portable form serves this GPU, so there is nothing to measure: {reason}")
    rows = [*against_torchvision(torch.float32), *against_torchvision(torch.bfloat16)]
    rows += [*against_plain(7), *against_plain(14), suppression()]
    for row in rows:
        times = {key: value for key, value in row.items() if key != "what"}
        ratios = "".join(f"  x {value / times['ours']:.2f}" for key, value in times.items() if key != "ours")
        print(f"{row['what']:84s}", *(f"{key} {value:8.3f} ms" for key, value in times.items()), ratios)
    if arguments.json:
        document = {**machine("triton", "torchvision"), "unit": "ms, median of CUDA events", "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

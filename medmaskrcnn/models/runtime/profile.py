"""Time and memory of a segmentation, stage by stage, and the efficiency of its dense part.

A :class:`Profile` is notified when a stage ends and records the time since the previous one. It uses the callbacks that
the pipeline and the network have anyway (progress, and the output of each step), plus two forward hooks.

Efficiency: the dense part consists of convolutions, that is, of matrix products. It is their floating-point operations
per second, divided by the rate of a large square matrix product on the same machine in the same precision.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from medmaskrcnn.system.stage_timer import StageTimer

STAGES = (
    "read", "preprocess", "backbone", "FPN", "RPN", "proposals", "RoIAlign", "box head", "selection", "mask head",
    "postprocess", "measure", "export",
)  # fmt: skip
"""Stages in order. ``proposals`` and ``selection`` decode boxes and run NMS; ``postprocess`` pastes and links."""

DENSE = ("backbone", "FPN", "RPN")
_OF_STEP = {
    "input": "postprocess",  # before the first layer: cropping of slices, pasting of the previous masks
    "pyramid": "FPN",
    "rpn": "RPN",
    "proposals": "proposals",
    "regions": "RoIAlign",
    "scores": "box head",
    "found": "selection",
    "masks": "mask head",
}
_OF_PROGRESS = {"prepare": "preprocess", "find": "postprocess", "write": "export"}
_GEMM_SIZE = 2048
_GEMM_RUNS = 5


@dataclass(frozen=True)
class StageCost:
    """Total time and peak memory of one stage.

    Attributes:
        name: One of :data:`STAGES`.
        seconds: Wall time.
        share: Fraction of the time of all stages, 0..1.
        peak_bytes: Peak memory of the process (on a GPU: of torch) while the stage ran; ``None`` if unknown.
    """

    name: str
    seconds: float
    share: float
    peak_bytes: int | None


@dataclass(eq=False)
class Profile:
    """Records the stages of one or more segmentations.

    Attributes:
        device: Device on which the network runs.
    """

    device: torch.device
    timer: StageTimer = field(default_factory=StageTimer)
    peaks: dict[str, int] = field(default_factory=dict)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    _stage: str | None = None

    def progress(self, stage: str, done: float) -> None:
        """Progress callback for the pipeline: a new stage ends the previous one."""
        stage = _OF_PROGRESS.get(stage, stage)
        if stage != self._stage:
            self.end()
            self._stage = stage

    def end(self) -> None:
        """End the last stage."""
        if self._stage is not None:
            self.mark(self._stage)
        self._stage = None
        self._start()

    def watch(self, step: str, made: Any) -> None:
        """Watch callback for the network; ``"input"`` and ``"masks"`` begin and end a forward pass."""
        self.mark(_OF_STEP[step])
        if step == "input":
            self.shapes[tuple(made.shape)] += 1

    def mark(self, stage: str) -> None:
        """Add the time since the last mark to a stage."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timer.end(stage)
        peak = _peak_bytes(self.device)
        if peak is not None:
            self.peaks[stage] = max(self.peaks.get(stage, 0), peak)
        self._start()

    @contextmanager
    def listening(self, *networks: nn.Module) -> Iterator[None]:
        """Context in which the networks report when their backbones and mask heads begin or end."""
        hooks = []
        for network in networks:
            backbone = network.get_submodule("pyramid.backbone")
            hooks.append(backbone.register_forward_hook(lambda *_: self.mark("backbone")))
            runs = getattr(network, "compiled", None) or network  # another engine has a mask head of its own
            if (mask_head := getattr(runs, "mask_head", None)) is not None:
                hooks.append(mask_head.register_forward_pre_hook(lambda *_: self.mark("RoIAlign")))
                hooks.append(mask_head.register_forward_hook(lambda *_: self.mark("mask head")))
        self._start()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name of the stage."""
        return self.timer.seconds

    @property
    def costs(self) -> list[StageCost]:
        """Every stage that took place, in order."""
        total = sum(self.seconds.values()) or 1.0
        return [
            StageCost(name, self.seconds[name], self.seconds[name] / total, self.peaks.get(name))
            for name in STAGES
            if name in self.seconds
        ]

    def dense_flops(self, network: nn.Module) -> int:
        """Floating-point operations (two per multiply-add) of backbone, FPN and RPN in all recorded passes."""
        return sum(count * dense_flops(network, shape) for shape, count in self.shapes.items())

    @property
    def dense_seconds(self) -> float:
        """Seconds spent in backbone, FPN and RPN."""
        return sum(self.seconds.get(name, 0.0) for name in DENSE)

    def _start(self) -> None:
        _forget_peak(self.device)
        self.timer.start()


def dense_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one pass of backbone, FPN and RPN over images of a shape; nothing is computed."""
    parts = copy.deepcopy(nn.ModuleList([network.get_submodule("pyramid"), network.get_submodule("rpn_head")]))
    parts = parts.to("cpu").float()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        parts[1](parts[0](torch.empty(shape)))
    return int(counter.get_total_flops())


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large square matrix product, the best of a few."""
    a, b = (torch.randn(_GEMM_SIZE, _GEMM_SIZE, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_GEMM_RUNS + 1):
        started = time.perf_counter()
        product = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    del product
    return 2 * _GEMM_SIZE**3 / best


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: resets the peak
    except OSError:
        return


def torch_dtype(precision: str) -> torch.dtype:
    """The data type of multiplications in a precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32

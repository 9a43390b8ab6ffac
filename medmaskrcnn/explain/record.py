"""Records the intermediate results of the forward pass on one window, without computing them again.

:meth:`MaskRCNN.detect` passes each step's output to a callback; two forward hooks add the backbone's maps and the mask
head's logits, which it does not pass. The inputs of non-maximum suppression are recomputed from the recorded tensors
with the functions that the network calls.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.explain.window import TracedWindow
from medmaskrcnn.models.box_head import Detections, decode_and_threshold
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.rpn import candidates
from medmaskrcnn.system.stage_timer import StageTimer


@dataclass(frozen=True)
class Step:
    """Time and memory of one step.

    Attributes:
        name: ``"backbone"``, ``"pyramid"``, ``"rpn"``, ``"proposals"``, ``"regions"``, ``"scores"``, ``"found"`` or
            ``"masks"``.
        seconds: Wall time.
        made_bytes: Memory of its output tensors.
        memory_bytes: On a GPU the peak allocation during the step; on a CPU the process's memory at its end; ``None``
            if the system does not report it.
    """

    name: str
    seconds: float
    made_bytes: int
    memory_bytes: int | None


@dataclass(frozen=True, eq=False)
class Walk:
    """Recorded forward pass of one window; all tensors on the CPU, float32 unless stated otherwise.

    Letters: ``C`` channels, ``P`` proposals, ``N`` detections, ``K`` classes, ``A`` anchors per cell, ``S`` dims.

    Attributes:
        image: ``(C, *spatial)``, the padded input.
        shape: Spatial shape without the padding.
        backbone: C2..C5, each ``(C, *map)``.
        pyramid: P2..P6, each ``(C, *map)``.
        strides: Strides of P2..P6 per axis, in voxels of the input.
        objectness: Per level ``(cells * A,)``, logits.
        anchors: Per level ``(cells * A, 2S)`` in voxels.
        candidates: Boxes ``(M, 2S)``, objectness in 0..1 ``(M,)`` and level ``(M,)`` before suppression.
        proposals: ``(P, 2S)`` in voxels, best first.
        regions: ``(P, C, *bins)``, what RoIAlign read for the box head.
        logits: ``(P, K + 1)``; column 0 is background.
        deltas: ``(P, K + 1, 2S)``.
        certain: Boxes with a score above the candidates' threshold, before suppression.
        certain_regions: ``(N',)`` int64, the proposal of each of them.
        detections: The detections, with masks if the network has a mask head.
        mask_logits: ``(N, K, *2 bins)``, or ``None`` without a mask head.
        steps: Time and memory of each step.
    """

    image: Tensor
    shape: tuple[int, ...]
    backbone: list[Tensor]
    pyramid: list[Tensor]
    strides: tuple[tuple[int, ...], ...]
    objectness: list[Tensor]
    anchors: list[Tensor]
    candidates: tuple[Tensor, Tensor, Tensor]
    proposals: Tensor
    regions: Tensor
    logits: Tensor
    deltas: Tensor
    certain: Detections
    certain_regions: Tensor
    detections: Detections
    mask_logits: Tensor | None
    steps: tuple[Step, ...]

    @property
    def dims(self) -> int:
        """Spatial dims, 2 or 3."""
        return len(self.shape)


@dataclass
class _Recorder:
    """Records each step's output, and time and memory since the previous step."""

    device: torch.device
    made: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    mask_logits: list[Tensor] = field(default_factory=list)
    timer: StageTimer = field(default_factory=StageTimer)

    def start(self) -> None:
        self._settle()
        self.timer.start()

    def watch(self, name: str, made: Any) -> None:
        """Record a step that has just ended."""
        self._settle()
        seconds = self.timer.end(name)
        self.steps.append(Step(name, seconds, _bytes(made), _memory(self.device)))
        self.made[name] = _to_cpu(made)
        self.start()

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)


def record_walk(
    network: MaskRCNN, window: TracedWindow, device: torch.device, *, post_nms_top_n: int | None = None
) -> Walk:
    """Run the network on a window and record the outputs of its steps.

    Args:
        network: On ``device``, in evaluation mode.
        window: From :func:`medmaskrcnn.explain.window.choose_window`.
        device: Where the network is.
        post_nms_top_n: Maximum number of proposals; that of the settings by default.
    """
    images = window.images.to(device)
    if device.type != "cpu":
        network.detect(images, [window.shape])  # warm-up: compiles the operators, so that compilation is not timed
    recorder = _Recorder(device)
    with ExitStack() as hooks:
        hooks.enter_context(_after(network.pyramid.backbone, lambda maps: recorder.watch("backbone", maps)))
        if network.mask_head is not None:
            hooks.enter_context(_after(network.mask_head, recorder.mask_logits.append))
        recorder.start()
        (detections,) = network.detect(images, [window.shape], post_nms_top_n=post_nms_top_n, watch=recorder.watch)
        recorder.watch("masks", detections.mask_probabilities if network.mask_head is not None else ())
    return _walk(network, window, recorder, detections)


def _walk(network: MaskRCNN, window: TracedWindow, recorder: _Recorder, detections: Detections) -> Walk:
    made, settings = recorder.made, network.settings
    objectness, deltas = ([level[0] for level in part] for part in made["rpn"][:2])
    anchors = made["rpn"][2]
    logits, box_deltas = made["scores"]
    (proposals,) = made["proposals"]
    certain, certain_regions = decode_and_threshold(logits, box_deltas, proposals, window.shape, settings.detection)
    masks = detections.mask_probabilities
    return Walk(
        image=window.images[0],
        shape=window.shape,
        backbone=[level[0] for level in made["backbone"]],
        pyramid=[level[0] for level in made["pyramid"]],
        strides=network.pyramid.strides,
        objectness=objectness,
        anchors=anchors,
        candidates=candidates(objectness, deltas, anchors, window.shape, settings.rpn),
        proposals=proposals,
        regions=made["regions"],
        logits=logits,
        deltas=box_deltas,
        certain=certain,
        certain_regions=certain_regions,
        detections=Detections(
            detections.boxes.cpu(),
            detections.labels.cpu(),
            detections.scores.cpu(),
            None if masks is None else masks.cpu(),
            None if detections.mask_boxes is None else detections.mask_boxes.cpu(),
        ),
        mask_logits=_joined_masks(network, recorder),
        steps=tuple(recorder.steps),
    )


def _joined_masks(network: MaskRCNN, recorder: _Recorder) -> Tensor | None:
    """Logits of all passes of the mask head, ``(N, K, *2 bins)``."""
    settings = network.settings
    if network.mask_head is None:
        return None
    if not recorder.mask_logits:
        side = (2 * settings.roi.mask_size,) * settings.spatial_dims
        return torch.zeros((0, len(settings.class_names), *side))
    return torch.cat(recorder.mask_logits).float().cpu()


def _after(module: nn.Module, take: Callable[[Any], None]) -> Any:
    """A forward hook that passes a module's output to ``take``; removed when the context ends."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        take(output)

    return module.register_forward_hook(hook)


def _to_cpu(made: Any) -> Any:
    if isinstance(made, Tensor):
        return made.detach().float().cpu() if made.is_floating_point() else made.detach().cpu()
    if isinstance(made, list | tuple):
        return [_to_cpu(part) for part in made]
    return made


def _bytes(made: Any) -> int:
    if isinstance(made, Tensor):
        return made.numel() * made.element_size()
    if isinstance(made, Detections):
        return _bytes([made.boxes, made.labels, made.scores])
    return sum(_bytes(part) for part in made) if isinstance(made, list | tuple) else 0


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        return None
    return None

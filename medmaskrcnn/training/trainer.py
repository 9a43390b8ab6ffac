"""The training step: updates the weights from samples. Lightning Fabric handles precision, devices and processes.

AdamW with warm-up and cosine decay (``schedule.py``), gradient clipping and an exponential moving average of the
weights, which is what is validated and saved. Under ``torchrun`` every process draws its share of each pass and
gradients are averaged; loss terms are divided by counts averaged over processes, so two processes learn what one does
with the whole pass.
All random numbers depend only on the seed and the sample's index.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.training.checkpoint import TrainingProgress
from medmaskrcnn.training.plan import LoopSettings, Plan
from medmaskrcnn.training.planner.patch import rounded_patch, sound_depth
from medmaskrcnn.training.samples import Sample
from medmaskrcnn.training.schedule import Clock, advance, schedule, seconds_left, steps_expected

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(settings: LoopSettings, device: torch.device) -> Fabric:
    """Set up Lightning Fabric for one process, or for as many as ``torchrun`` started.

    Raises:
        InvalidOptionError: if the device does not support the plan's precision, or a pass cannot be divided equally.
    """
    if settings.precision == "fp16" and device.type == "cpu":
        what = "train.precision fp16 needs a GPU; use bf16 or fp32 on the CPU"
        raise InvalidOptionError("train.precision", what)
    world, here = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if settings.batch % world:
        what = f"train.batch {settings.batch} cannot be shared out equally among {world} processes"
        raise InvalidOptionError("train.batch", what)
    fabric = Fabric(
        accelerator=device.type,
        devices=here,
        num_nodes=world // here,
        strategy="ddp" if world > 1 else "auto",
        precision=_PRECISION[settings.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def check_depths(plan: Plan, device: torch.device) -> None:
    """Reject a patch that gives a feature map of two slices: there torch's bf16 gradients on the CPU are wrong.

    Raises:
        InvalidOptionError: if the plan has such a patch; see ``docs/decisions/010``.
    """
    if plan.train.precision != "bf16" or plan.model.spatial_dims == 2 or device.type != "cpu":
        return
    strides = [stride[0] for stride in plan.model.backbone.strides]
    for name in ("patch", "oversampled_patch"):
        patch = getattr(plan.augment, name)
        if patch is not None and not sound_depth(patch[0], strides):
            depths = [-(-patch[0] // stride) for stride in strides]
            deeper = [rounded_patch(patch, plan.model.backbone.strides)[0], *patch[1:]]
            raise InvalidOptionError(
                f"augment.{name}",
                f"augment.{name} of {patch[0]} slices makes maps of {depths} slices, and in maps of 2 slices gradients "
                f"in bf16 are wrong on a CPU: set augment.{name} to {deeper}, or train.precision to fp32",
            )


@dataclass(frozen=True)
class StepReport:
    """One update.

    Attributes:
        step: Number of updates done, including this one.
        terms: The weighted loss terms by name; means over processes and passes.
        learning_rate: Learning rate of this update.
        seconds: Duration, including waiting for samples.
        steps: Updates of the whole training; an estimate if it ends by time.
        seconds_left: Estimated seconds until the last update.
    """

    step: int
    terms: dict[str, float]
    learning_rate: float
    seconds: float
    steps: int
    seconds_left: float

    @property
    def total(self) -> float:
        """The total loss, which is minimised."""
        return sum(self.terms.values())


class Trainer:
    """A network in training, with its optimizer and the moving average of its weights.

    Args:
        network: The network; ``fabric`` moves it to its device. Frozen parts have ``requires_grad=False``.
        plan: The training plan.
        fabric: Lightning Fabric (:func:`make_fabric`).
        began: When the clock of the training was started, as :func:`time.monotonic` gives it; now if not given.
    """

    def __init__(self, network: MaskRCNN, plan: Plan, fabric: Fabric, *, began: float | None = None) -> None:
        self.plan, self.settings, self.fabric = plan, plan.train, fabric
        self.clock = Clock(began)
        self._layout = layout_of(network)
        network = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(network).eval().requires_grad_(False).to(fabric.device)
        learnt = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay)
        self.network = network.train()
        self.wrapped, self.optimizer = fabric.setup(network, optimizer)
        self.wrapped.mark_forward_method("losses")
        self.progress = TrainingProgress()

    def states(self) -> dict[str, dict[str, object]]:
        """The state dicts that a checkpoint holds in addition to the progress."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, progress: TrainingProgress, states: dict[str, dict[str, object]]) -> None:
        """Restore the state of a checkpoint."""
        self.progress = progress
        self.clock.before = progress.seconds
        self.network.load_state_dict(states["network"])
        self.average.load_state_dict(states["average"])
        self.optimizer.load_state_dict(states["optimizer"])

    def learn(self, passes: Iterator[list[Sample]]) -> StepReport:
        """Make one update from the next passes.

        Raises:
            FloatingPointError: if the loss is not finite; the message names the cases.
        """
        began = time.monotonic()
        rate = self.settings.learning_rate * schedule(self.progress, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for turn in range(self.settings.accumulate_grad_batches):
            samples = next(passes)
            with self.fabric.no_backward_sync(self.wrapped, enabled=turn + 1 < self.settings.accumulate_grad_batches):
                terms = self._losses(samples)
                total = torch.stack(list(terms.values())).sum()
                if not bool(torch.isfinite(total)):
                    raise FloatingPointError(self._explained(samples, terms))
                self.fabric.backward(total / self.settings.accumulate_grad_batches)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self.settings.accumulate_grad_batches
        strict = self.settings.precision != "fp16"  # its gradient scaler skips steps that are not finite
        self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=self.settings.grad_clip_norm, error_if_nonfinite=strict
        )
        self.optimizer.step()
        self._follow()
        times = (time.monotonic() - began, self.clock.seconds())  # every process must stop at the same step
        shared = self._mean_over_processes(torch.tensor([*sums.values(), *times]))
        *values, seconds, now = shared.tolist()
        progress, settings = self.progress, self.settings
        advance(progress, settings, step_seconds=seconds, now=now)
        expected, left = steps_expected(progress, settings), seconds_left(progress, settings)
        return StepReport(progress.step, dict(zip(sums, values, strict=True)), rate, seconds, expected, left)

    def _losses(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        device = self.fabric.device
        images = torch.stack([sample.image for sample in samples]).to(device, memory_format=self._layout)
        targets = [sample.targets.to(device) for sample in samples]
        return self.wrapped.losses(
            images, targets, seeds=[sample.seed for sample in samples], share_counts=self._mean_over_processes
        )

    def _mean_over_processes(self, values: Tensor) -> Tensor:
        shared: Any = self.fabric.all_reduce(values.to(self.fabric.device), reduce_op="mean")
        return torch.as_tensor(shared)

    @torch.no_grad()
    def _follow(self) -> None:
        share = newest_share(self.progress.step, self.settings)
        for kept, new in zip(_floats(self.average), _floats(self.network), strict=True):
            kept.lerp_(new, share)

    @torch.no_grad()
    def _explained(self, samples: Sequence[Sample], terms: dict[str, Tensor]) -> str:
        """Error message that names the cases whose loss is not finite; each is tested on its own."""
        guilty = []
        for sample in samples:
            image = sample.image[None].to(self.fabric.device)
            alone = self.network.losses(image, [sample.targets.to(self.fabric.device)], seeds=[sample.seed])
            if not all(math.isfinite(float(value)) for value in alone.values()):
                guilty.append(sample.case_id)
        cases = guilty or [sample.case_id for sample in samples]
        values = ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
        return (
            f"the loss is not finite at step {self.progress.step + 1} ({values}), in case {', '.join(cases)}. "
            "Look at its image, or lower train.learning_rate"
        )


def layout_of(network: MaskRCNN) -> torch.memory_format:
    """Memory format of images and weights during training: channels last in 2D, which is faster.

    Not if a strided 1x1 convolution has fewer than 16 input channels: its weight gradient in fp32 with channels last
    then writes out of bounds on the CPU (oneDNN of torch 2.15).
    """
    narrow = (
        isinstance(part, torch.nn.Conv2d)
        and part.in_channels < 16
        and set(part.kernel_size) == {1}
        and set(part.stride) != {1}
        for part in network.modules()
    )
    return torch.contiguous_format if network.settings.spatial_dims == 3 or any(narrow) else torch.channels_last


def newest_share(step: int, settings: LoopSettings) -> float:
    """Share of the newest weights in their moving average after update ``step``, counted from 0.

    The first updates count more than ``ema_decay`` allows: with 0.995, two fifths of the initial weights would
    otherwise still be in the average after 180 updates.
    """
    return 1 - min(settings.ema_decay, (1 + step) / (10 + step))


def _floats(network: MaskRCNN) -> Iterator[Tensor]:
    return (value for value in network.state_dict().values() if value.is_floating_point())

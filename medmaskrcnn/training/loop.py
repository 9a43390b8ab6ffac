"""A plain training loop: enough to make the models that ship, resumable after any interruption.

AdamW with warm-up and cosine decay, gradient clipping, an exponential moving average of the weights, which is what
is saved. Every random number is a function of seed and step.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medmaskrcnn.config import Count, Fraction, ModelFileSettings, Positive, Settings
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.model_file import save_model
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.training.augment import AugmentSettings, draw_sample
from medmaskrcnn.training.cases import LabelledCase

log = logging.getLogger(__name__)

_LOG_EVERY = 10
_SAVE_EVERY = 100


class LoopSettings(Settings):
    """How long and how fast to learn.

    Attributes:
        steps: Updates of the weights.
        batch: Samples an update.
        learning_rate: Peak, after the warm-up.
        warmup: Steps until the peak.
        weight_decay: AdamW's.
        clip: Largest norm of the gradient.
        ema: Decay of the moving average of the weights.
        bf16: Dense layers in bfloat16.
        seed: Of everything random.
    """

    steps: Count
    batch: Count = 1
    learning_rate: Positive = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Positive = 5.0
    ema: Fraction = 0.995
    bf16: bool = True
    seed: int = 0


class _Samples(Dataset[list[tuple[Tensor, Targets]]]):
    """Batch ``i`` is a function of seed and ``i`` alone, whichever worker draws it."""

    def __init__(
        self, cases: Sequence[LabelledCase], settings: ModelFileSettings, augment: AugmentSettings, loop: LoopSettings
    ) -> None:
        self.cases, self.settings, self.augment, self.loop = cases, settings, augment, loop

    def __len__(self) -> int:
        return self.loop.steps

    def __getitem__(self, step: int) -> list[tuple[Tensor, Targets]]:
        random = torch.Generator().manual_seed(self.loop.seed * 1_000_003 + step)
        model = self.settings.model
        return [
            draw_sample(
                self.cases[int(torch.randint(len(self.cases), (), generator=random))],
                self.augment,
                context_slices=model.context_slices,
                spatial_dims=model.spatial_dims,
                random=random,
            )
            for _ in range(self.loop.batch)
        ]


def train(
    cases: Sequence[LabelledCase],
    settings: ModelFileSettings,
    augment: AugmentSettings,
    loop: LoopSettings,
    out: Path,
    *,
    checkpoint_folder: Path,
    workers: int = 0,
    start_from: MaskRCNN | None = None,
) -> Path:
    """Train a model and save it.

    Args:
        cases: Prepared training cases.
        settings: The model to train; its ``training`` record is filled in.
        augment: How samples are drawn.
        loop: How long and how fast.
        out: Model file to write.
        checkpoint_folder: Where checkpoints and the log of losses go; if a checkpoint lies there, it is resumed.
        workers: Processes that draw samples.
        start_from: A network with the same layers whose weights are the first ones; random weights otherwise.

    Returns:
        ``out``.

    Raises:
        ValueError: if there are no cases.
        FloatingPointError: if the loss is no longer finite; the message names the step.
    """
    if not cases:
        raise ValueError("there are no cases to train on: does the manifest have cases of the chosen splits?")
    _check_depths(settings, augment, loop)
    if augment.favoured_patch and loop.batch > 1:
        raise ValueError(f"windows of two sizes cannot lie in one batch of {loop.batch}: leave out favoured_patch")
    torch.manual_seed(loop.seed)
    model = build_model(settings.model).train()
    if start_from is not None:
        model.load_state_dict(start_from.state_dict())
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=loop.learning_rate, weight_decay=loop.weight_decay)
    checkpoint_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_folder / "last.pt"
    first = _resume(checkpoint, model, average, optimizer)
    samples = _Samples(cases, settings, augment, loop)
    to_do = range(first, loop.steps)
    loader = DataLoader(samples, batch_size=None, sampler=to_do, num_workers=workers, collate_fn=_keep)
    started = time.monotonic()
    for step, batch in enumerate(loader, start=first):
        terms = _update(model, optimizer, batch, step, loop)
        _average(average, model, min(loop.ema, (1 + step) / (10 + step)))
        if (step + 1) % _LOG_EVERY == 0:
            seconds = (time.monotonic() - started) / (step + 1 - first)
            _record(checkpoint_folder / "losses.csv", step + 1, terms, seconds)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == loop.steps:
            state = {"step": step + 1, "model": model.state_dict(), "average": average.state_dict()}
            _save_checkpoint(checkpoint, {**state, "optimizer": optimizer.state_dict()})
    record: dict[str, str | int | float] = {"cases": len(cases), **loop.model_dump()}
    save_model(average, settings.model_copy(update={"training": record}), out)
    return out


def _check_depths(settings: ModelFileSettings, augment: AugmentSettings, loop: LoopSettings) -> None:
    """Refuse a patch that makes a map two slices deep: torch's bf16 gradient is garbage there (``models/rpn.py``)."""
    if loop.bf16 and settings.model.spatial_dims == 3:
        for patch in {augment.patch, augment.favoured_patch or augment.patch}:
            depths = [-(-patch[0] // stride[0]) for stride in settings.model.backbone.strides]
            if 2 in depths:
                raise ValueError(f"a patch of {patch[0]} slices makes maps of {depths}; avoid 2, or set bf16=False")


def _keep(batch: Any) -> Any:
    return batch


def _update(
    model: MaskRCNN,
    optimizer: torch.optim.Optimizer,
    batch: list[tuple[Tensor, Targets]],
    step: int,
    loop: LoopSettings,
) -> dict[str, float]:
    torch.manual_seed(loop.seed * 1_000_003 + step)  # RPN and RoI sampling
    for group in optimizer.param_groups:
        group["lr"] = loop.learning_rate * _schedule(step, loop)
    images = torch.stack([image for image, _ in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=loop.bf16):
        terms = model.losses(images, [targets for _, targets in batch])
    total = torch.stack(list(terms.values())).sum()
    if not bool(torch.isfinite(total)):
        raise FloatingPointError(f"the loss became {total.item()} at step {step}: {_numbers(terms)}")
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), loop.clip, error_if_nonfinite=True)
    optimizer.step()
    return _numbers(terms)


def _numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in terms.items()}


def _schedule(step: int, loop: LoopSettings) -> float:
    if step < loop.warmup:
        return (step + 1) / loop.warmup
    progress = (step - loop.warmup) / max(1, loop.steps - loop.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def _average(average: MaskRCNN, model: MaskRCNN, decay: float) -> None:
    for kept, new in zip(_floats(average), _floats(model), strict=True):
        kept.lerp_(new, 1 - decay)


def _floats(model: MaskRCNN) -> Iterator[Tensor]:
    return (value for value in model.state_dict().values() if value.is_floating_point())


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(path: Path, model: MaskRCNN, average: MaskRCNN, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("resumed %s at step %d", path, state["step"])
    return int(state["step"])


def _record(path: Path, step: int, terms: dict[str, float], seconds: float) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["step", *terms, "seconds_per_step"])
        writer.writerow([step, *(f"{value:.4f}" for value in terms.values()), f"{seconds:.2f}"])
    text = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
    log.info("step %d  %s  (%.2f s a step)", step, text, seconds)

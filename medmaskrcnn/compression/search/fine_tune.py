"""Fine-tuning of a pruned network: a short training on the manifest, starting from its own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.training.plan import Patch, Plan
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn.training.run import train
from medmaskrcnn.training.training_run import CHECKPOINT, Event

_GENTLER = 0.3  # of the plan's learning rate: the weights are nearly converged
_WARM_UP = 0.05  # of the steps
_FOLLOW = 10.0  # the moving average of the weights forgets the start this many times over


def planned_training(manifest: Manifest, settings: ModelFileSettings) -> Plan:
    """The planner's training plan on a manifest for an existing model."""
    report = check_manifest(manifest)
    report.raise_if_bad()
    model = settings.model
    plan, _ = make_plan(manifest, report.case_fingerprints, dims=2.5 if model.context_slices else model.spatial_dims)
    return plan


def fine_tune(
    pruned: Path,
    manifest: Manifest,
    plan: Plan,
    folder: Path,
    *,
    steps: int,
    device: str = "auto",
    workers: int = 1,
    cache: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Train a model file further; resumes an interrupted training.

    Args:
        pruned: The model file.
        manifest: Labelled cases; those of the split ``train`` are used.
        plan: Sampling and optimisation; network and preprocessing are those of the file.
        folder: The training's folder.
        steps: Number of optimiser steps.
        device: Where to train.
        workers: Processes that draw samples.
        cache: Where prepared cases are kept.
        on_event: Called as training progresses.

    Returns:
        The trained model file.
    """
    own = read_model_settings(pruned)
    loop = plan.train.model_copy(
        update={
            "steps": steps,
            "hours": None,
            "patience": None,
            "validate_every": steps,
            "warmup_steps": int(_WARM_UP * steps),
            "learning_rate": _GENTLER * plan.train.learning_rate,
            "ema_decay": min(plan.train.ema_decay, max(0.0, 1 - _FOLLOW / steps)),
            "freeze": (),
        }
    )
    patches = {name: _whole_cells(getattr(plan.augment, name), own) for name in ("patch", "oversampled_patch")}
    short = Plan(
        card=own.card,
        model=own.model,
        preprocess=own.preprocess,
        inference=own.inference,
        augment=plan.augment.model_copy(update=patches),
        train=loop,
    )
    resume = (folder / CHECKPOINT).exists()
    return train(
        manifest, short, folder, check=False, device=device, workers=workers, resume=resume,
        start_from=pruned, cache=cache, on_event=on_event,
    ).model  # fmt: skip


def _whole_cells(patch: Patch | None, settings: ModelFileSettings) -> Patch | None:
    """A patch enlarged to multiples of the network's padding."""
    if patch is None:
        return None
    multiples = (1,) * (3 - settings.model.spatial_dims) + settings.preprocess.pad_multiple
    depth, height, width = (-(-n // m) * m for n, m in zip(patch, multiples, strict=True))
    return depth, height, width

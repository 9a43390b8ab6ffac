"""The objective of a search: a short training, scored on the validation cases when it has ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.run import choose_cases, train
from medmaskrcnn.training.training_run import CHECKPOINT, Event
from medmaskrcnn.training.tune.search import Objective
from medmaskrcnn.training.tune.space import SearchSpace

_OF_PREPARED_CASES = ("preprocess", "model.class_names")


def training_objective(
    manifest: Manifest,
    plan: Plan,
    space: SearchSpace,
    folder: Path,
    *,
    steps: int | None = None,
    splits: Sequence[str] = ("train",),
    fold: int | None = None,
    device: str = "auto",
    workers: int = 1,
    start_from: str | os.PathLike[str] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Objective:
    """An objective that trains a plan. The manifest is assumed to have been checked.

    Args:
        manifest: Labelled cases.
        plan: The base plan of the search.
        space: The values to search over.
        folder: The search's folder: prepared cases are kept and shared there if the search does not affect them.
        steps: Steps of each training, instead of the plan's; ignored if the space has ``train.steps``.
        splits: Splits of the manifest to train on.
        fold: Cross-validation instead of ``splits``.
        device: Device to train on.
        workers: Processes that draw samples.
        start_from: Initial weights of each training.
        on_event: Called with each event of each training.

    Raises:
        ReadError: if there is no case to train on, or none to validate on.
    """
    _, held_out = choose_cases(manifest, plan.model.class_names, splits, fold)
    if not held_out:
        raise ReadError(f"{manifest.name} has no case to validate on: give some the split val, or choose a fold")
    shared = not any(path.startswith(_OF_PREPARED_CASES) for path in space.paths)

    def objective(candidate: Plan, run: Path) -> float:
        if not (run / CHECKPOINT).exists():  # interrupted before the first checkpoint
            shutil.rmtree(run, ignore_errors=True)
        loop = candidate.train
        wanted = loop.steps if steps is None or "train.steps" in space.paths else steps
        once = loop.model_copy(update={"steps": wanted, "hours": None, "validate_every": wanted, "patience": None})
        record = train(
            manifest,
            candidate.model_copy(update={"train": once}),
            run,
            check=False,
            splits=splits,
            fold=fold,
            device=device,
            workers=workers,
            resume=(run / CHECKPOINT).exists(),
            start_from=start_from,
            cache=folder / "cache" if shared else None,
            on_event=on_event,
        )
        if record.best is None:
            raise MedMaskRCNNError(
                "nothing could be scored: do the validation cases hold objects of the plan's classes?"
            )
        (run / CHECKPOINT).unlink(missing_ok=True)
        return record.best[0]

    return objective

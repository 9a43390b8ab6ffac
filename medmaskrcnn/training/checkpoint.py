"""Training checkpoints: written atomically, and read without unpickling anything but tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.files import replacing
from medmaskrcnn.training.plan import parse_plan


@dataclass
class TrainingProgress:
    """Progress of a training.

    Attributes:
        step: Updates done.
        seconds: Wall time spent since the first command began, summed over all commands up to their last checkpoints.
        share: Share of a training with a time budget that is done, 0 to 1; ``None`` if it has none or has not begun.
        step_seconds: Mean duration of the latest updates.
        learning_seconds: Duration of all updates.
        loop_seconds: Duration of all updates, validations and checkpoints.
        validation_seconds: Duration of the longest validation.
        validation_cases: Number of cases to validate on; ``None`` before the first validation.
        best_score: Best validation score so far; ``None`` before the first validation.
        best_step: Step at which it was reached.
        epochs_since_best: Validations since then without an improvement.
    """

    step: int = 0
    seconds: float = 0.0
    share: float | None = None
    step_seconds: float = 0.0
    learning_seconds: float = 0.0
    loop_seconds: float = 0.0
    validation_seconds: float = 0.0
    validation_cases: int | None = None
    best_score: float | None = None
    best_step: int = 0
    epochs_since_best: int = 0


def save_checkpoint(path: Path, progress: TrainingProgress, plan: str, **states: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: The file.
        progress: Progress of the training.
        plan: The plan as YAML; a training can be resumed only with the plan it was started with.
        states: State dicts by name.

    Raises:
        OutputError: if it cannot be written.
    """
    with replacing(path) as temporary:
        torch.save({"progress": asdict(progress), "plan": plan, **states}, temporary)


def load_checkpoint(path: Path, plan: str) -> tuple[TrainingProgress, dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: The file.
        plan: The plan to resume with, as YAML.

    Returns:
        The progress, and the state dicts by name.

    Raises:
        ReadError: if it cannot be read or belongs to another plan.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        progress = TrainingProgress(**state.pop("progress"))
        begun_with = state.pop("plan")
    except Exception as error:  # torch raises many types here; all mean the same to the user
        raise ReadError(f"cannot read checkpoint {path}: {' '.join(str(error).split())[:200]}") from error
    if not same_plan(begun_with, plan):
        raise ReadError(
            f"{path} was begun with another plan (plan.yaml beside it). Resume with that plan, "
            "or train into another folder"
        )
    return progress, state


def same_plan(begun_with: str, plan: str) -> bool:
    """Whether two plans have equal settings; a newer version may write settings that an older one did not have."""
    try:
        return begun_with == plan or parse_plan(begun_with) == parse_plan(plan)
    except ReadError:  # a plan of a version whose settings are no longer known
        return False

"""Cross-validation: one training for each fold, one after another, and one model file with all their networks.

    deal patients into folds -> train on all folds but one, validate on that -> the same for the next -> join the models

The joined model runs all networks and averages what they find (:mod:`medmaskrcnn.models.averaged`), and its validation
score is the mean over folds: each case was scored by the one network that has not learnt from it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.errors import OutputError, ReadError, Remedy
from medmaskrcnn.hub.model_file import read_model, save_members
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.training.plan import Plan, plan_text
from medmaskrcnn.training.run import train
from medmaskrcnn.training.training_run import BEST, Event, TrainingRecord

FOLDS = 5

_PLAN = "plan.yaml"
_CACHE = "cache"


def with_folds(manifest: Manifest, folds: int | None = None) -> Manifest:
    """The manifest with a fold for each case that is not for testing: its own where it has them, else by patient.

    Args:
        manifest: The manifest.
        folds: Number of folds; by default those of the manifest, else :data:`FOLDS`.

    Raises:
        ReadError: if only some cases have a fold, there are fewer patients than folds, or the manifest's folds are
            another number than asked for.
    """
    dealt = [case for case in manifest.cases if case.split != "test"]
    own = {case.fold for case in dealt if case.fold is not None}
    if own:
        lacking = [case.id for case in dealt if case.fold is None]
        if lacking:
            raise ReadError(f"{manifest.name} gives a fold to some cases only; {len(lacking)} have none: {lacking[:3]}")
        if folds not in (None, len(own)):
            raise ReadError(f"{manifest.name} has {len(own)} folds of its own, not {folds}; leave the number out")
        return manifest
    count = folds or FOLDS
    patients = sorted({case.patient for case in dealt}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(patients) < count or count < 2:
        raise ReadError(
            f"{len(patients)} patients cannot be dealt into {count} folds; folds must be 2 to {len(patients)}"
        )
    place = {patient: number % count for number, patient in enumerate(patients)}
    cases = tuple(
        case if case.split == "test" else case.model_copy(update={"fold": place[case.patient]})
        for case in manifest.cases
    )
    return manifest.model_copy(update={"cases": cases})


def train_folds(
    manifest: Manifest,
    plan: Plan,
    folder: str | os.PathLike[str],
    *,
    folds: int | None = None,
    resume: bool = False,
    plan_yaml: str | None = None,
    began: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_fold: Callable[[int, int], None] | None = None,
    **options: Any,
) -> TrainingRecord:
    """Train one network for each fold and join them in one model file.

    Args:
        manifest: Labelled cases.
        plan: The training plan; with ``train.hours`` each fold gets its share of them.
        folder: The folder of all runs: ``fold0``, ``fold1``, ...; it must not hold any unless ``resume`` is set.
        folds: Number of folds; by default those of the manifest, else :data:`FOLDS`.
        resume: Go on where an earlier call was broken off; finished folds are not trained again.
        plan_yaml: The plan's original text with its comments.
        began: As for :func:`medmaskrcnn.training.run.train`; what came before counts as time of the first fold.
        on_event: Called with each event of the fold in training.
        on_fold: Called with the number of folds done and their total, before each.
        options: Further options of :func:`medmaskrcnn.training.run.train`, without ``splits``, ``fold``, ``check``.

    Returns:
        The model file with all networks, the folder, the sum of the steps and the mean of the folds' best scores with
        the last step.

    Raises:
        ReadError: as :func:`with_folds` and :func:`medmaskrcnn.training.run.train`.
        OutputError: if ``folder`` holds another run, or cannot be written to.
    """
    labelled = with_folds(manifest, folds)
    numbers = sorted({case.fold for case in labelled.cases if case.fold is not None and case.split != "test"})
    home = Path(folder)
    if not resume and (home / _PLAN).exists():
        raise OutputError(f"{home} holds a run already", Remedy.RESUME)
    if resume and not (home / _PLAN).exists():
        raise ReadError(f"{home} holds no folds to go on with ({_PLAN})", Remedy.START_ANEW)
    make_folder(home)
    write_bytes(home / _PLAN, (plan_yaml or plan_text(plan)).encode())
    cache = options.pop("cache", None) or home / _CACHE
    records = []
    for done, number in enumerate(numbers):
        if on_fold is not None:
            on_fold(done, len(numbers))
        run = home / f"fold{number}"
        goes_on = (run / _PLAN).exists()  # perhaps broken off before its first checkpoint
        records.append(
            train(
                labelled, _of_one_fold(plan, done, len(numbers)), run, check=False, fold=number, resume=goes_on,
                cache=cache, began=None if done else began, on_event=on_event, **options,
            )
        )  # fmt: skip
    if cache == home / _CACHE:
        shutil.rmtree(cache, ignore_errors=True)
    return _joined(records, home)


def _of_one_fold(plan: Plan, number: int, folds: int) -> Plan:
    """The plan with a seed of its own, so that networks differ, and a share of the wall time, if it goes by that."""
    hours = plan.train.hours and plan.train.hours / folds
    changed = plan.train.model_copy(update={"hours": hours, "seed": plan.train.seed + number})
    return plan.model_copy(update={"train": changed})


def _joined(records: list[TrainingRecord], home: Path) -> TrainingRecord:
    """One model file of the best network of each fold."""
    read = [read_model(record.model) for record in records]
    settings = read[0][1]
    scores = [record.best[0] for record in records if record.best is not None]
    about: dict[str, str | int | float] = {
        key: value for key, value in settings.training.items() if key not in ("step", "cases", "validation_score")
    }
    about |= {"folds": len(records), "steps_of_all_folds": sum(record.steps for record in records)}
    mean = sum(scores) / len(scores) if scores else None
    if mean is not None:
        about["validation_score"] = mean
    joined = settings.model_copy(update={"members": len(records), "training": about})
    save_members([network for network, _ in read], joined, home / BEST)
    steps = sum(record.steps for record in records)
    return TrainingRecord(home / BEST, home, steps, None if mean is None else (mean, steps))

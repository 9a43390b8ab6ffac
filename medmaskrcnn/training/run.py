"""Train a model: from a manifest and a plan to a model file. START READING HERE to learn how training works.

    cases of the manifest -> prepared once -> samples -> training loop -> validation -> the best model

A run has a folder with its plan, checkpoint, tables of losses and scores, plot, pictures and models. An interrupted
run, even one that was killed, resumes from its last checkpoint and ends with the weights of an uninterrupted run.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from medmaskrcnn.data.cases import prepare_cases
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.errors import InvalidOptionError, OutputError, ReadError, Remedy
from medmaskrcnn.models.build import build_model, check_buildable
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime.device import choose_device
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.system.memory import retain_freed_memory
from medmaskrcnn.system.threads import use_one_thread
from medmaskrcnn.training.augment import Transform
from medmaskrcnn.training.boards import Board, TensorBoard, WeightsAndBiases
from medmaskrcnn.training.checkpoint import load_checkpoint, same_plan
from medmaskrcnn.training.familiarity import remember_scans
from medmaskrcnn.training.plan import Plan, plan_text
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn.training.samples import ResumableBatchSampler, Sample, Samples
from medmaskrcnn.training.trainer import Trainer, check_depths, make_fabric
from medmaskrcnn.training.training_run import BEST, CHECKPOINT, LAST, Event, Preparing, TrainingRecord, TrainingRun
from medmaskrcnn.training.transfer.apply import TransferReport, freeze, transfer

_PLAN = "plan.yaml"
_TRANSFER = "first-weights.csv"
_ENDLESS = 10**9  # passes, if training ends by time


def train(
    manifest: str | os.PathLike[str] | Manifest,
    plan: Plan | None,
    folder: str | os.PathLike[str],
    *,
    check: bool = True,
    splits: Sequence[str] = ("train",),
    fold: int | None = None,
    device: str = "auto",
    workers: int = 2,
    resume: bool = False,
    start_from: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
    build: Callable[[ModelSettings], MaskRCNN] = build_model,
    cache: str | os.PathLike[str] | None = None,
    plan_yaml: str | None = None,
    began: float | None = None,
    wandb: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> TrainingRecord:
    """Train a model.

    Example:
        >>> record = medmaskrcnn.train("data/manifest.json", None, "run")  # doctest: +SKIP
        >>> medmaskrcnn.segment("scan.nii.gz", record.model)  # doctest: +SKIP

    Args:
        manifest: Labelled cases.
        plan: The training plan (:func:`medmaskrcnn.read_plan`); ``None`` to have one made from the cases.
        folder: The run's folder; it must not hold a run unless ``resume`` is set.
        check: Check all cases first.
        splits: Splits of the manifest to train on; cases without a split count as ``train``. Cases of ``val``, if it
            is not among them, are segmented after each epoch and decide which model is best.
        fold: Cross-validation instead of ``splits``: validate on this fold, train on the other cases that have a fold.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. Under ``torchrun`` every process uses one.
        workers: Processes with one thread each that prepare cases, and then draw samples while this one learns.
        resume: Resume from the checkpoint in ``folder``; from the beginning if the run ended before its first one.
        start_from: Initial weights; see :func:`medmaskrcnn.training.transfer.apply.transfer`.
        transform: A user-defined transform, applied to every sample after the plan's augmentation.
        build: Builds the network; replace it to train a network of your own.
        cache: Folder of prepared cases, kept for other runs; by default one inside ``folder``, removed at the end.
        plan_yaml: The plan's original text with its comments, saved in ``folder``.
        began: When the clock of ``plan.train.hours`` was started, as :func:`time.monotonic` gives it; by default when
            this function is called.
        wandb: Project of Weights & Biases in which to show losses and scores too (``WANDB_MODE=offline``: only files).
        on_event: Called with each event of the run.

    Returns:
        The model file, the run's folder, the number of steps and the best validation.

    Raises:
        MedMaskRCNNError: if the plan asks for a network that the library does not build.
        ReadError: if cases are invalid (all are listed), there are none, or the checkpoint does not fit.
        OutputError: if ``folder`` holds another run, or cannot be written to.
        ModelFileError: if ``start_from`` cannot be used.
        FloatingPointError: if the loss is not finite; the message names the cases.
        MissingExtraError: if Weights & Biases is asked for and not installed.
        InvalidOptionError: if plan, device and number of processes do not fit together, or the plan has one objectness
            for all classes and no case is annotated for all.
    """
    began = time.monotonic() if began is None else began
    if plan is not None and build is build_model:
        check_buildable(plan.model)
    labelled = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    if check or plan is None:
        report = check_manifest(labelled)
        report.raise_if_bad()
        if plan is None:
            plan, reasons = make_plan(labelled, report.case_fingerprints)
            plan_yaml = plan_text(plan, reasons)
    run, where = Path(folder), choose_device(device)
    learnt, held_out = choose_cases(labelled, plan.model.class_names, splits, fold)
    check_depths(plan, where)
    check_objectness(plan, labelled, learnt)
    fabric = make_fabric(plan.train, where)
    listen = on_event if on_event is not None and fabric.is_global_zero else lambda event: None
    if fabric.is_global_zero:
        _claim(run, plan_yaml or plan_text(plan), resume=resume)
    prepared = Path(cache) if cache else run / "cache"
    with fabric.rank_zero_first():
        files = prepare_cases(
            labelled, learnt, plan.settings, prepared, workers=workers, progress=lambda *n: listen(Preparing(*n))
        )
    network, begun_with = _first_network(plan, build, start_from, listen)
    if begun_with is not None and fabric.is_global_zero:
        write_bytes(run / _TRANSFER, begun_with.csv().encode())
    trainer = Trainer(network, plan, fabric, began=began)
    if resume and (run / CHECKPOINT).exists():
        trainer.load(*load_checkpoint(run / CHECKPOINT, plan_text(plan)))
    boards = _boards(run, plan, trainer, wandb) if fabric.is_global_zero else []
    training_run = TrainingRun(run, plan, labelled, held_out, trainer, listen, cases=len(learnt), boards=boards)
    weights = [case.weight for case in learnt]
    batches = _batches(files, weights, plan, trainer, workers=workers, transform=transform)
    try:
        with retain_freed_memory():
            training_run.work(batches)
    finally:
        training_run.close()
        _end_workers(batches)
    if fabric.is_global_zero:
        for model in (LAST, BEST):
            if (run / model).exists():
                remember_scans(run / model, files, device=trainer.fabric.device, build=build)
    fabric.barrier()
    if fabric.is_global_zero and not cache:
        shutil.rmtree(prepared, ignore_errors=True)
    return training_run.ended()


def choose_cases(
    manifest: Manifest, class_names: Sequence[str], splits: Sequence[str], fold: int | None
) -> tuple[list[ManifestCase], list[ManifestCase]]:
    """Cases to train on and cases to validate on.

    Raises:
        ReadError: if the manifest lacks a class or has no training case, or the fold has none.
    """
    missing = sorted(set(class_names) - set(manifest.class_names))
    if missing:
        raise ReadError(f"{manifest.name} has no class {', '.join(missing)}, which the plan's model.class_names has")
    if fold is None:
        learnt = [case for case in manifest.cases if (case.split or "train") in splits]
        held_out = [case for case in manifest.cases if case.split == "val" and "val" not in splits]
    else:
        dealt = [case for case in manifest.cases if case.fold is not None and case.split != "test"]
        learnt = [case for case in dealt if case.fold != fold]
        held_out = [case for case in dealt if case.fold == fold]
        if not held_out:
            there = sorted({case.fold for case in dealt if case.fold is not None})
            raise ReadError(f"{manifest.name} has no case in fold {fold}; its folds: {there or 'none'}")
    if not learnt:
        raise ReadError(f"{manifest.name} has no case to learn from in the splits {', '.join(splits)}")
    return learnt, held_out


def check_objectness(plan: Plan, manifest: Manifest, cases: Sequence[ManifestCase]) -> None:
    """Reject one objectness for all classes where no case is annotated for all: it would have no negatives.

    Raises:
        InvalidOptionError: naming the setting; see ``docs/decisions/021``.
    """
    names = set(plan.model.class_names)
    if plan.model.rpn.objectness == "shared" and not any(names <= set(manifest.annotated_in(c)) for c in cases):
        raise InvalidOptionError(
            "model.rpn.objectness",
            f"none of {len(cases)} cases is annotated for all of {len(names)} classes, so that one objectness for all "
            "classes has no background to learn from: set model.rpn.objectness to per_class",
        )


def _boards(run: Path, plan: Plan, trainer: Trainer, wandb: str | None) -> list[Board]:
    boards: list[Board] = [TensorBoard(run, trainer.progress.step)]
    if wandb is not None:
        boards.append(WeightsAndBiases(wandb, run, plan.model_dump(mode="json")))
    return boards


def _claim(run: Path, plan: str, *, resume: bool) -> None:
    """Create the run's folder, or check that it holds a run to go on with."""
    if resume:
        if not (run / CHECKPOINT).exists():
            _check_begun(run, plan)
        return
    if (run / CHECKPOINT).exists() or (run / _PLAN).exists():
        raise OutputError(f"{run} holds a run already", Remedy.RESUME)
    make_folder(run)
    write_bytes(run / _PLAN, plan.encode())


def _check_begun(run: Path, plan: str) -> None:
    """Check that a run without a checkpoint was begun with this plan: it ended before its first one."""
    try:
        begun_with = (run / _PLAN).read_text(encoding="utf-8")
    except OSError as error:
        raise ReadError(f"{run} holds no checkpoint to resume from ({CHECKPOINT})", Remedy.START_ANEW) from error
    if not same_plan(begun_with, plan):
        raise ReadError(f"{run} was begun with another plan ({_PLAN}). Resume with that plan, or use another folder")


def _first_network(
    plan: Plan,
    build: Callable[[ModelSettings], MaskRCNN],
    start_from: str | os.PathLike[str] | None,
    on_event: Callable[[Event], None],
) -> tuple[MaskRCNN, TransferReport | None]:
    """The network before its first step, and which weights it began with, if any were given."""
    torch.manual_seed(plan.train.seed)
    network = build(plan.model)
    report = None if start_from is None else transfer(network, start_from)
    if report is not None:
        on_event(report)
    freeze(network, plan.train.freeze)
    return network, report


def _batches(
    files: Sequence[Path],
    weights: Sequence[float],
    plan: Plan,
    trainer: Trainer,
    *,
    workers: int,
    transform: Transform | None,
) -> Iterator[list[Sample]]:
    settings, fabric = plan.train, trainer.fabric
    passes = _ENDLESS if settings.hours else settings.steps * settings.accumulate_grad_batches
    batches = ResumableBatchSampler(
        passes,
        settings.batch,
        first=trainer.progress.step * settings.accumulate_grad_batches,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    samples = Samples(files, plan, weights=weights, transform=transform)
    loader: DataLoader[Any] = DataLoader(
        samples, batch_sampler=batches, num_workers=workers, collate_fn=list, worker_init_fn=_begin_worker
    )
    return iter(loader)


def _end_workers(batches: Iterator[list[Sample]]) -> None:
    """Tell the loader's processes to end, after an error too: they ignore the signal that Python would send them."""
    end = getattr(batches, "_shutdown_workers", None)  # None if this process draws the samples itself
    if end is not None:
        end()


def _begin_worker(worker: int) -> None:
    use_one_thread()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to every process; this one ends with its parent
    retain_freed_memory().__enter__()  # to the end of the process: windows of one size are made again and again

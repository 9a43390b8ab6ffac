"""The training run: the training loop with its checkpoints, validation, logs and saved models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import save_model
from medmaskrcnn.system.files import make_folder
from medmaskrcnn.system.signals import ending_politely
from medmaskrcnn.training.boards import Board
from medmaskrcnn.training.checkpoint import TrainingProgress, save_checkpoint
from medmaskrcnn.training.plan import Plan, plan_text
from medmaskrcnn.training.records import Records
from medmaskrcnn.training.samples import Sample
from medmaskrcnn.training.schedule import begin, is_over, look_at_clock, seconds_left, share_done
from medmaskrcnn.training.trainer import StepReport, Trainer
from medmaskrcnn.training.transfer.apply import TransferReport
from medmaskrcnn.training.validate import PICTURES, Validation, validate

CHECKPOINT, LAST, BEST = "checkpoint.pt", "last.safetensors", "best.safetensors"

_SAVE_SECONDS = 60.0  # between checkpoints
_FIRST_VALIDATION = 0.25  # share of a training by time at which the first takes place at the latest: it tells its cost
_VALIDATION_COST = 0.05  # of the time, for one validation; with many or large cases, only some are taken


@dataclass(frozen=True)
class Preparing:
    """Progress of preparation: ``done`` of ``total`` cases have been resampled to the network's grid."""

    done: int
    total: int


Event = Preparing | TransferReport | StepReport | Validation
"""What a run reports while it is in progress."""


@dataclass(frozen=True)
class TrainingRecord:
    """Result of a training run.

    Attributes:
        model: The model file: the best by validation, or the last if nothing was validated.
        folder: The run's folder.
        steps: Updates made.
        best: The best validation's score and step; ``None`` without validation.
    """

    model: Path
    folder: Path
    steps: int
    best: tuple[float, int] | None


class TrainingRun:
    """The training loop with its checkpoints, validation and logs."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        manifest: Manifest,
        held_out: Sequence[ManifestCase],
        trainer: Trainer,
        on_event: Callable[[Event], None],
        *,
        cases: int,
        boards: Sequence[Board],
    ) -> None:
        self.folder, self.plan, self.manifest, self.held_out, self.cases = folder, plan, manifest, held_out, cases
        self.trainer, self.on_event, self.leads = trainer, on_event, trainer.fabric.is_global_zero
        self.records = Records(folder, trainer.progress.step, boards) if self.leads else None
        self.saved_at = time.monotonic()

    def work(self, batches: Iterator[list[Sample]]) -> None:
        """Train to the end; an interrupt (Ctrl-C) or SIGTERM (Slurm) saves a checkpoint and the model first."""
        settings, trainer = self.plan.train, self.trainer
        begin(trainer.progress, settings, now=trainer.clock.seconds())
        with ending_politely() as told:
            self._work(batches, told)

    def _work(self, batches: Iterator[list[Sample]], told: list[int]) -> None:
        settings, trainer = self.plan.train, self.trainer
        try:
            while not is_over(trainer.progress, settings):
                report = trainer.learn(batches)
                if self.records:
                    self.records.step(report)
                self.on_event(report)
                if is_over(trainer.progress, settings) or self._validation_is_due():
                    self._validate()
                over = is_over(trainer.progress, settings)
                if over or told or time.monotonic() - self.saved_at > _SAVE_SECONDS:
                    self._save()
                if told and not over:
                    raise SystemExit(128 + told[0])
        except KeyboardInterrupt:
            self._save()
            raise

    def close(self) -> None:
        """Finish the logs and the plot, however training ended."""
        if self.records:
            self.records.plot()
            self.records.close()

    def ended(self) -> TrainingRecord:
        """The result of the run."""
        progress = self.trainer.progress
        best = self.folder / BEST
        score = progress.best_score
        return TrainingRecord(
            best if best.exists() else self.folder / LAST,
            self.folder,
            progress.step,
            None if score is None else (score, progress.best_step),
        )

    def _validation_is_due(self) -> bool:
        """Whether an epoch ends here: after so many steps; by time, also when a quarter of it is over."""
        progress, settings = self.trainer.progress, self.plan.train
        ends = progress.step % settings.validate_every == 0
        if settings.hours is None:
            return ends
        if progress.validation_cases is None:
            return ends or share_done(progress, settings) >= _FIRST_VALIDATION
        return ends and progress.validation_seconds < 2 * _VALIDATION_COST * seconds_left(progress, settings)

    def _validate(self) -> None:
        trainer, progress = self.trainer, self.trainer.progress
        if self.held_out and self.leads:
            began = time.monotonic()
            if progress.validation_cases is None:
                progress.validation_cases = self._affordable()
                began = time.monotonic()
            found = self._scores(progress.validation_cases)
            progress.validation_seconds = max(progress.validation_seconds, time.monotonic() - began)
            if self.records:
                self.records.validated(found)
            self.on_event(found)
            better = found.score is not None and (progress.best_score is None or found.score > progress.best_score)
            progress.epochs_since_best = 0 if better else progress.epochs_since_best + 1
            if better:
                progress.best_score, progress.best_step = found.score, progress.step
                self._write_model(BEST)
        look_at_clock(progress, self.plan.train, now=trainer.clock.seconds())
        shared: TrainingProgress = trainer.fabric.broadcast(progress)
        trainer.progress = shared  # every process must stop at the same step

    def _affordable(self) -> int:
        """Number of cases to validate on: all, or as many as the time allows, judged by one."""
        hours, cases = self.plan.train.hours, len(self.held_out)
        if hours is None or cases == 1:
            return cases
        began = time.monotonic()
        try:
            self._scores(1, pictures=0)
        except MedMaskRCNNError:  # this case alone cannot be scored; the others perhaps can
            return cases
        return min(cases, max(1, int(_VALIDATION_COST * hours * 3600 / (time.monotonic() - began))))

    def _scores(self, cases: int, *, pictures: int = PICTURES) -> Validation:
        """Scores of the averaged weights on ``cases`` of the validation cases, evenly spaced in their order."""
        chosen = [self.held_out[i * len(self.held_out) // cases] for i in range(cases)]
        loaded = LoadedModel(self.trainer.average, self.plan.settings, "", self.trainer.fabric.device)
        folder = make_folder(self.folder / "pictures")
        return validate(
            loaded, self.manifest, chosen, step=self.trainer.progress.step, folder=folder, pictures=pictures
        )

    def _save(self) -> None:
        if self.leads:
            trainer = self.trainer
            save_checkpoint(self.folder / CHECKPOINT, trainer.progress, plan_text(self.plan), **trainer.states())
            self._write_model(LAST)
        self.saved_at = time.monotonic()

    def _write_model(self, name: str) -> None:
        progress = self.trainer.progress
        about: dict[str, str | int | float] = {
            "data": self.manifest.name,
            "step": progress.step,
            "cases": self.cases,
            **({"validation_score": progress.best_score} if name == BEST and progress.best_score is not None else {}),
            **{k: v for k, v in self.plan.train.model_dump().items() if isinstance(v, str | int | float)},
        }
        save_model(self.trainer.average, self.plan.settings.model_copy(update={"training": about}), self.folder / name)

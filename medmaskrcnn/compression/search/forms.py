"""The files of the variants: the original model, quantised to 8 bits, pruned and fine-tuned. Each is made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from medmaskrcnn.compression.prune import prune
from medmaskrcnn.compression.quantise import quantise
from medmaskrcnn.compression.search.calibrate import calibration_images
from medmaskrcnn.compression.search.fine_tune import fine_tune, planned_training
from medmaskrcnn.compression.search.variant import Variant
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.hub.loaded_model import LoadedModel, load_model
from medmaskrcnn.hub.model_file import model_sha256, read_model, read_model_settings, save_model
from medmaskrcnn.models.inference_backend import quantised_folder
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.training_run import CHECKPOINT, Event


@dataclass
class Forms:
    """Makes and keeps the files.

    Attributes:
        model: The model file to start from.
        manifest: Labelled cases.
        folder: Where files are kept.
        steps: Number of fine-tuning steps.
        plan: How to fine-tune; the planner's by default.
        images: Number of slices or tiles to calibrate 8-bit forms on.
        device: Where variants run, ``cpu`` or ``cuda``; training uses whatever is available.
        workers: Processes that draw training samples.
        on_event: Called as training progresses.
    """

    model: Path
    manifest: Manifest
    folder: Path
    steps: int
    plan: Plan | None = None
    images: int = 64
    device: str = "cpu"
    workers: int = 1
    on_event: Callable[[Event], None] | None = None

    def load(self, variant: Variant) -> LoadedModel:
        """A variant, ready to run."""
        file = self.file(variant)
        loaded = load_model(file, device=self.device, precision=variant.precision, engine=variant.engine)
        inference = loaded.settings.inference.model_copy(
            update={} if variant.proposals is None else {"post_nms_top_n_test": variant.proposals}
        )
        return replace(loaded, settings=loaded.settings.model_copy(update={"inference": inference}))

    def file(self, variant: Variant) -> Path:
        """The model file of a variant, with its 8-bit form beside it where it needs that."""
        file = self._pruned(variant.pruned) if variant.pruned else self._original()
        if variant.precision == "int8" and not quantised_folder(file, model_sha256(file)).is_dir():
            quantise(file, calibration_images(self.manifest, read_model_settings(file), self.images))
        return file

    def _original(self) -> Path:
        file = self.folder / "original.safetensors"
        if not file.is_file():
            save_model(*read_model(self.model), file)
        return file

    def _pruned(self, share: float) -> Path:
        name = f"pruned-{share:g}"
        trained = self.folder / f"{name}.safetensors"
        if trained.is_file():
            return trained
        network, settings = read_model(self._original())
        smaller = prune(network, share)
        start, run = self.folder / f"{name}-untrained.safetensors", self.folder / name
        save_model(smaller, settings.model_copy(update={"model": smaller.settings, "familiarity": None}), start)
        if not (run / CHECKPOINT).exists():
            shutil.rmtree(run, ignore_errors=True)  # interrupted before its first checkpoint
        if self.plan is None:
            self.plan = planned_training(self.manifest, settings)
        best = fine_tune(
            start, self.manifest, self.plan, run, steps=self.steps, device="auto", workers=self.workers,
            cache=self.folder / "cache", on_event=self.on_event,
        )  # fmt: skip
        shutil.copyfile(best, trained)
        shutil.rmtree(run)
        return trained

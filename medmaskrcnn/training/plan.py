"""The training plan: every setting of a training, in one readable YAML file that can be edited and passed back.

The planner (``training/planner``) writes one from the labelled data, with the reason for each value as a comment; the
plans of the shipped models are in ``training/plans``.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medmaskrcnn.errors import ReadError
from medmaskrcnn.settings import (
    Count,
    Fraction,
    InferenceSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    NotNegative,
    Positive,
    PreprocessSettings,
    Settings,
)
from medmaskrcnn.settings.base import what_is_wrong
from medmaskrcnn.settings.migration import to_current_names
from medmaskrcnn.structures.laterality import has_side

Patch = tuple[Count, Count, Count]

_SHIPPED_PLANS = Path(__file__).parent / "plans"
_WARMUP = ("warmup_ratio", "warmup_steps")
_WARMUP_STEPS = 50  # in plans of 0.1.0 that do not say
_LINE = 110  # characters; longer lists are wrapped


class AugmentSettings(Settings):
    """How a training sample is drawn from a case and augmented.

    Attributes:
        patch: Window D, H, W in voxels of the network's grid; D is 1 for 2D and 2.5D models (neighbours are added).
        foreground_prob: Share of windows that are centred near an object, with all classes equally likely.
        oversampled_class: Class around which half of those windows are centred: small objects among large ones.
        oversampled_patch: Size of the windows drawn for the oversampled class, ``patch`` if not given: a small
            object needs little context, and a smaller window costs less. ``train.batch`` must then be 1.
        flip: Axes of D, H, W that are mirrored in half of the samples. Never the left-right axis (W in the
            orientation ``SPL``) if class names have a side.
        rotate_degrees: Largest rotation in the H-W plane.
        zoom: Largest relative change in size, per axis.
        shift: Largest shift, as a share of the window, per axis.
        elastic: Standard deviation of a smooth random deformation, as a share of the window.
        blur: Largest standard deviation of a Gaussian blur, in voxels.
        shift_intensity, scale_intensity: Largest change per channel, in units of the normalised image.
        gamma: Largest change of the logarithm of the exponent applied between the window's extremes.
        bias_field: Largest coefficient of a smooth random bias field, as produced by MR receive coils.
        noise: Largest standard deviation of added Gaussian noise.
        colour: Largest change of saturation and of each channel's brightness (colour images).
    """

    patch: Patch
    foreground_prob: Fraction = 0.67
    oversampled_class: str | None = None
    oversampled_patch: Patch | None = None
    flip: tuple[Literal["D", "H", "W"], ...] = ()
    rotate_degrees: NotNegative = 0.0
    zoom: NotNegative = 0.0
    shift: NotNegative = 0.0
    elastic: NotNegative = 0.0
    blur: NotNegative = 0.0
    shift_intensity: NotNegative = 0.0
    scale_intensity: NotNegative = 0.0
    gamma: NotNegative = 0.0
    bias_field: NotNegative = 0.0
    noise: NotNegative = 0.0
    colour: NotNegative = 0.0


class LoopSettings(Settings):
    """Settings of the training loop: length, batches, optimizer and validation.

    Attributes:
        steps: Updates of the weights.
        hours: Train for this time instead: the wall time of the whole training, with the check, the preparation of
            cases and validation. The times of resumed trainings add up.
        batch: Samples per pass, over all processes together.
        accumulate_grad_batches: Passes per update; their gradients are averaged.
        learning_rate: Peak of AdamW's rate, after the warm-up.
        warmup_ratio: Share of the training in which the rate rises to its peak.
        warmup_steps: The same as a number out of ``steps``, as plans of 0.1.0 have it; it goes before ``warmup_ratio``.
            Without either it is 50, which it was in 0.1.0.
        weight_decay: Weight decay of AdamW.
        grad_clip_norm: Largest norm of the gradient.
        ema_decay: Decay of the moving average of the weights, which is what is validated and saved; lower in the first
            steps, so that little of the initial weights is left in it.
        precision: Precision of the dense layers; logits, deltas and losses are always fp32.
        validate_every: Steps per epoch; after each epoch the validation cases are segmented and scored.
        patience: Epochs without a better score after which training stops; ``None`` never stops early.
        freeze: Parts whose weights are not trained: ``stem``, ``stage1`` ... ``stage4`` (of ``resenc`` to ``stage6``),
            ``fpn``, ``rpn``.
        seed: Seed of all random numbers.
    """

    steps: Count = 5000
    hours: Positive | None = None
    batch: Count = 1
    accumulate_grad_batches: Count = 1
    learning_rate: Positive = 1e-3
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    weight_decay: NotNegative = 1e-2
    grad_clip_norm: Positive = 5.0
    ema_decay: Fraction = 0.995
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    validate_every: Count = 500
    patience: Count | None = None
    freeze: tuple[Literal["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "fpn", "rpn"], ...] = ()
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _warmup_of_0_1_0(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and all(values.get(name) is None for name in _WARMUP):
            return {**values, "warmup_steps": _WARMUP_STEPS}
        return values

    @property
    def warmup_share(self) -> float:
        """Share of the training in which the rate rises; half if the steps would be over before the peak."""
        if self.warmup_steps is None:
            return self.warmup_ratio or 0.0
        return self.warmup_steps / self.steps if self.warmup_steps < self.steps else 0.5

    def of_length(self, *, steps: int | None = None, hours: float | None = None) -> LoopSettings:
        """These settings for a training of another length, with the same share of warm-up.

        Args:
            steps: Number of updates; unchanged if not given.
            hours: Wall time instead of steps; ``None`` to go by steps if they are given, else unchanged.
        """
        if steps is None and hours is None:
            return self
        length = {"steps": steps or self.steps, "hours": hours}
        if length["steps"] == self.steps or self.warmup_steps is None:
            return self.model_copy(update=length)
        return self.model_copy(update={**length, "warmup_steps": None, "warmup_ratio": self.warmup_share})


class Plan(Settings):
    """All settings that turn a manifest into a model.

    Attributes:
        card: What the model is for; printed by ``medmaskrcnn models``.
        model, preprocess, inference: As saved in the model file.
        augment: How samples are drawn and augmented.
        train: Settings of the training loop.
    """

    card: ModelCard
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    inference: InferenceSettings = InferenceSettings()
    augment: AugmentSettings
    train: LoopSettings = LoopSettings()

    @property
    def settings(self) -> ModelFileSettings:
        """The settings that are saved in the model file."""
        return ModelFileSettings(card=self.card, model=self.model, preprocess=self.preprocess, inference=self.inference)

    @model_validator(mode="after")
    def _check(self) -> Plan:
        depth = self.augment.patch[0]
        if self.model.spatial_dims == 2 and depth != 1:
            raise ValueError(f"augment.patch of a 2D model is one slice deep (neighbours come on top), got {depth}")
        if self.augment.oversampled_class not in (None, *self.model.class_names):
            raise ValueError(
                f"augment.oversampled_class names {self.augment.oversampled_class!r}, which model.class_names lacks"
            )
        if self.augment.oversampled_patch and self.train.batch != 1:
            raise ValueError("augment.oversampled_patch gives windows of two sizes: train.batch must be 1")
        if "W" in self.augment.flip and self.preprocess.orientation != "as_stored":
            sided = sorted(filter(has_side, self.model.class_names))
            if sided:
                raise ValueError(f"augment.flip swaps left and right (W), but these classes have sides: {sided}")
        _ = self.settings  # checks that model, preprocess and inference fit each other
        return self


def shipped_plans() -> dict[str, Path]:
    """Plans of the shipped models, by model name."""
    return {path.stem: path for path in sorted(_SHIPPED_PLANS.glob("*.yaml"))}


def read_plan(name_or_path: str | os.PathLike[str]) -> Plan:
    """Read a plan: a shipped one by name, or a YAML file.

    Raises:
        ReadError: if it is missing, not YAML, or has an invalid value; the message names the key.
    """
    path = shipped_plans().get(str(name_or_path), Path(name_or_path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(shipped_plans())
        raise ReadError(f"cannot read plan {path}: {error.strerror}; plans that ship: {known}") from error
    except UnicodeDecodeError as error:
        raise ReadError(f"{path} is no plan: it is not a text file") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, source: str = "the text") -> Plan:
    """A plan from YAML; ``source`` names it in error messages.

    Raises:
        ReadError: if it is not YAML or has an invalid value; the message names the key.
    """
    try:
        return Plan.model_validate(to_current_names(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        raise ReadError(f"{source} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = [
            ": ".join([*filter(None, [".".join(map(str, e["loc"]))]), what_is_wrong(e)]) for e in error.errors()
        ]
        raise ReadError(f"{source} cannot be: {'; '.join(problems)}") from error


def plan_text(plan: Plan, reasons: Mapping[str, str] | None = None, *, head: str = "") -> str:
    """A plan as YAML.

    Args:
        plan: The plan; every value is written, including defaults.
        reasons: The reason for each value by its dotted path (``"preprocess.spacing_mm"``); written as comments.
        head: First lines, as comments.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    _emit(plan.model_dump(mode="json"), dict(reasons or {}), "", 0, lines)
    return "\n".join(lines) + "\n"


def _emit(values: Mapping[str, Any], reasons: Mapping[str, str], path: str, depth: int, lines: list[str]) -> None:
    indent = "  " * depth
    for key, value in values.items():
        where = f"{path}{key}"
        if depth == 0:
            lines.append("")
        if where in reasons:
            lines += [f"{indent}# {line}" for line in textwrap.wrap(reasons[where], _LINE)]
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:")
            _emit(value, reasons, f"{where}.", depth + 1, lines)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=_LINE, allow_unicode=True)
            first, *further = text.removesuffix("...\n").rstrip().splitlines()  # YAML ends a lone scalar with dots
            lines += [f"{indent}{key}: {first}", *(f"{indent}    {line}" for line in further)]

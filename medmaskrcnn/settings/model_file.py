"""What a model's file holds beside its weights: card, network, preprocessing, inference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medmaskrcnn.settings.base import Settings
from medmaskrcnn.settings.inference import InferenceSettings
from medmaskrcnn.settings.network import ModelSettings
from medmaskrcnn.settings.preprocess import PreprocessSettings


class LabelCode(Settings):
    """What a class is in coded terms, each ``(scheme, value, meaning)``, e.g. ``("SCT", "10200004", "Liver")``.

    Attributes:
        type: What it is.
        category: What kind of thing that is; anatomy where not given.
        modifier: Its side.
        region: Where a change of tissue (a tumour) lies.
    """

    type: tuple[str, str, str]
    category: tuple[str, str, str] | None = None
    modifier: tuple[str, str, str] | None = None
    region: tuple[str, str, str] | None = None


class ModelCard(Settings):
    """What a user must know before trusting a model; printed by ``medmaskrcnn models``.

    Attributes:
        name: Short name, as in ``--model NAME``.
        summary: One sentence.
        modality: DICOM modality the model was made for, or ``None`` for any.
        domain: Generator (:attr:`Provenance.generator`) that its scans must come from; ``None`` for real scans.
        data: What it was trained on.
        licence: Licence of the weights.
        attribution: Credit that the data's licence asks for.
        scores: Measured figures, name to sentence.
        limits: What it cannot do.
        made_by: The command that made it.
        codes: Coded terms of classes that :mod:`medmaskrcnn.export.codes` does not know, or knows otherwise, by class
            name; the DICOM exports use them.
    """

    name: str
    summary: str = ""
    modality: str | None = None
    domain: str | None = None
    data: str = ""
    licence: str = ""
    attribution: str = ""
    scores: dict[str, str] = Field(default_factory=dict)
    limits: tuple[str, ...] = ()
    made_by: str = ""
    codes: dict[str, LabelCode] = Field(default_factory=dict)


class ModelFileSettings(Settings):
    """All that a model's file holds beside its weights."""

    format_version: Literal[2] = 2
    card: ModelCard
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    inference: InferenceSettings = InferenceSettings()
    training: dict[str, str | int | float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> ModelFileSettings:
        model, preprocess = self.model, self.preprocess
        if model.spatial_dims == 2 and preprocess.spacing_mm[0] is not None:
            raise ValueError("a 2D model keeps the scan's slices: spacing_mm[0] must be None")
        if len(preprocess.pad_multiple) != model.spatial_dims or any(
            pad % stride for pad, stride in zip(preprocess.pad_multiple, model.backbone.strides[-1], strict=True)
        ):
            raise ValueError(
                f"pad_multiple must be multiples of the strides {model.backbone.strides[-1]} of P5, "
                f"got {preprocess.pad_multiple}"
            )
        channels = model.image_channels
        if len(preprocess.mean) not in (1, channels) or len(preprocess.std) not in (1, channels):
            raise ValueError(
                f"mean and std must have one value or one per image channel ({channels}), "
                f"got {preprocess.mean} and {preprocess.std}"
            )
        if channels % max(1, len(preprocess.windows)):
            raise ValueError(f"{len(preprocess.windows)} windows cannot make up {channels} image channels")
        unknown = sorted(set(self.inference.one_per_scan_classes) - set(model.class_names))
        if unknown:
            raise ValueError(f"inference.one_per_scan_classes names classes that the model lacks: {unknown}")
        return self

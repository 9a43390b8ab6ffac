"""Settings in a model file, beside the weights: card, network, preprocessing, inference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medmaskrcnn.settings.base import Count, Name, Settings, Text
from medmaskrcnn.settings.familiarity import FamiliaritySettings
from medmaskrcnn.settings.inference import InferenceSettings
from medmaskrcnn.settings.network import ModelSettings
from medmaskrcnn.settings.preprocess import PreprocessSettings


class LabelCode(Settings):
    """Coded terms of a class, each ``(scheme, value, meaning)``, e.g. ``("SCT", "10200004", "Liver")``.

    Attributes:
        type: Segmented Property Type.
        category: Segmented Property Category; anatomy if not given.
        modifier: Laterality.
        region: Anatomic region of a lesion (a tumour).
    """

    type: tuple[Name, Name, Name]
    category: tuple[Name, Name, Name] | None = None
    modifier: tuple[Name, Name, Name] | None = None
    region: tuple[Name, Name, Name] | None = None


class ModelCard(Settings):
    """What a user should know before trusting a model; printed by ``medmaskrcnn models``.

    Attributes:
        name: Short name, as in ``--model NAME``.
        summary: One sentence.
        modality: DICOM modality the model was made for, or ``None`` for any.
        domain: Generator (:attr:`Provenance.generator`) that scans must come from; ``None`` for real scans.
        data: What it was trained on.
        licence: Licence of the weights.
        attribution: Credit required by the licence of the data.
        scores: Measured results, name to sentence.
        limits: Known limitations.
        made_by: The command that produced it.
        codes: Coded terms by class name that add to or replace those of :mod:`medmaskrcnn.export.codes` in the DICOM
            exports.
        aliases: Further names of each class in data sets, ``{"anterior hippocampus": ("Anterior",)}``, by which an
            evaluation recognises it; other spellings of the same name need none.
    """

    name: Name
    summary: Text = ""
    modality: Name | None = None
    domain: Name | None = None
    data: Text = ""
    licence: Text = ""
    attribution: Text = ""
    scores: dict[Name, Text] = Field(default_factory=dict)
    limits: tuple[Text, ...] = ()
    made_by: Text = ""
    codes: dict[Name, LabelCode] = Field(default_factory=dict)
    aliases: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)


class ModelFileSettings(Settings):
    """All settings in a model file.

    Attributes:
        members: Number of networks in the file, whose outputs are averaged: the folds of a cross-validation.
        familiarity: What scans of the model's own kind look like to it; ``None`` if that was not measured.
    """

    format_version: Literal[2] = 2
    members: Count = 1
    card: ModelCard
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    inference: InferenceSettings = InferenceSettings()
    familiarity: FamiliaritySettings | None = None
    training: dict[Name, Text | int | float] = Field(default_factory=dict)

    @property
    def scan_channels(self) -> int:
        """Channels that a scan must have: image channels of the network, of which each window makes one."""
        return self.model.image_channels // max(1, len(self.preprocess.windows))

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
        if preprocess.channel_names and len(preprocess.channel_names) != self.scan_channels:
            got = ", ".join(preprocess.channel_names)
            raise ValueError(f"{self.scan_channels} channels of a scan need as many channel_names, got {got}")
        unknown = sorted(set(self.inference.one_per_scan_classes) - set(model.class_names))
        if unknown:
            raise ValueError(f"inference.one_per_scan_classes names classes that the model lacks: {unknown}")
        beyond = [axis for axis in self.inference.flips if axis == "D" and model.spatial_dims == 2]
        if beyond:
            raise ValueError("inference.flips of a 2D model can be H and W only")
        strangers = sorted(set(self.card.aliases) - set(model.class_names))
        if strangers:
            raise ValueError(f"card.aliases names classes that the model lacks: {strangers}")
        return self

"""Settings are checked when made, cannot be changed, and refuse what they do not know."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    InferenceSettings,
    LossSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
    Settings,
)

STRIDES_3D = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
SIZES_3D = ((4, 16, 16), (8, 32, 32), (16, 64, 64), (32, 128, 128), (64, 256, 256))


def three_dimensional(**change: Any) -> ModelSettings:
    parts: dict[str, Any] = {
        "spatial_dims": 3,
        "class_names": ("liver",),
        "backbone": BackboneSettings(strides=STRIDES_3D),
        "anchors": AnchorSettings(sizes=SIZES_3D),
    }
    return ModelSettings(**{**parts, **change})


ALL: list[Settings] = [
    PreprocessSettings(),
    BackboneSettings(),
    AnchorSettings(),
    RPNSettings(),
    RoISettings(),
    DetectionSettings(),
    LossSettings(),
    ModelSettings(class_names=("liver",)),
    InferenceSettings(),
    ModelCard(name="m"),
]


@pytest.mark.parametrize("settings", ALL, ids=lambda s: type(s).__name__)
def test_unknown_keys_are_refused_and_values_are_frozen(settings: Settings) -> None:
    values = settings.model_dump()
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        type(settings)(**values, misspelt=1)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(values)), None)


def test_a_model_file_comes_back_from_json_as_it_was() -> None:
    settings = ModelFileSettings(
        card=ModelCard(name="m", modality="CT", scores={"Dice": "0.9"}, limits=("adults only",)),
        model=three_dimensional(image_channels=2),
        preprocess=PreprocessSettings(
            spacing_mm=(None, 1.5, 1.5), windows=((-160, 240), (-1000, 400)), pad_multiple=(8, 32, 32)
        ),
        inference=InferenceSettings(tile=(64, 128, 128)),
        training={"seed": 1, "loss": 0.25, "command": "train"},
    )
    assert ModelFileSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("preprocess", "inference", "message"),
    [
        ({"pad_multiple": (32, 32)}, {}, "pad_multiple must be multiples"),
        ({"pad_multiple": (4, 32, 32)}, {}, "pad_multiple must be multiples"),
        ({"mean": (0.0, 0.0, 0.0)}, {}, "mean and std"),
        ({"windows": ((0, 1), (0, 2), (0, 3))}, {}, "windows cannot make up 2 image channels"),
        ({}, {"one_per_scan_classes": ("spleen",)}, "classes that the model lacks"),
    ],
)
def test_parts_of_a_model_file_that_do_not_fit(
    preprocess: dict[str, Any], inference: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelFileSettings(
            card=ModelCard(name="m"),
            model=three_dimensional(image_channels=2),
            preprocess=PreprocessSettings(**{"pad_multiple": (8, 32, 32), **preprocess}),
            inference=InferenceSettings(**inference),
        )


def test_a_2d_model_keeps_the_slices_of_the_scan() -> None:
    with pytest.raises(ValidationError, match="keeps the scan's slices"):
        ModelFileSettings(
            card=ModelCard(name="m"),
            model=ModelSettings(class_names=("a",)),
            preprocess=PreprocessSettings(spacing_mm=(5.0, 1.0, 1.0)),
        )


def test_a_newer_model_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="format_version"):
        ModelFileSettings(format_version=2, card=ModelCard(name="m"), model=three_dimensional())  # type: ignore[arg-type]


def test_channels_of_the_network() -> None:
    assert ModelSettings(class_names=("a",), image_channels=2, context_slices=3).input_channels == 14
    assert three_dimensional(image_channels=2).input_channels == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": [(10, 10)]}, "low < high"),
        ({"percentiles": (99, 1)}, "low < high"),
        ({"value_range": (1, 0)}, "low < high"),
        ({"windows": [(0, 1)], "percentiles": (1, 99)}, "either windows or percentiles"),
        ({"resize_min_max": (800, 1333), "spacing_mm": (None, 1, 1)}, "either spacing_mm or resize_min_max"),
        ({"spacing_mm": (0, 1, 1)}, "greater than 0"),
        ({"std": (0.0,)}, "greater than 0"),
        ({"orientation": "RAS"}, "orientation"),
    ],
)
def test_preprocessing_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PreprocessSettings(**change)


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        (((4, 4), (8, 8), (16, 16)), "one entry per level"),
        (((4, 4), (8, 8), (16, 16), (32,)), "one entry per level"),
        (((4, 3), (8, 6), (16, 12), (32, 24)), "last axis"),
        (((8, 8), (16, 16), (32, 32), (64, 64)), "last axis"),
        (((4, 4), (4, 8), (16, 16), (32, 32)), "factor of 1 or 2"),
        (((3, 4), (6, 8), (12, 16), (24, 32)), "factor of 1 or 2"),
        (((2, 4), (1, 8), (2, 16), (4, 32)), "factor of 1 or 2"),
    ],
)
def test_strides_that_no_backbone_has(strides: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BackboneSettings(strides=strides)


def test_strides_per_axis_for_thick_slices() -> None:
    assert BackboneSettings(strides=STRIDES_3D).strides == STRIDES_3D
    flat = ((1, 4, 4), (1, 8, 8), (1, 16, 16), (2, 32, 32))
    assert BackboneSettings(strides=flat).strides == flat


@pytest.mark.parametrize("sizes", [(), (*SIZES_3D[:4], (64, 256))])
def test_anchor_sizes_of_the_wrong_shape(sizes: Any) -> None:
    with pytest.raises(ValidationError, match="at least one entry, all of one length"):
        AnchorSettings(sizes=sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ()}, "at least one"),
        ({"class_names": ("a", "a")}, "distinct"),
        ({"context_slices": 1}, "needs spatial_dims=2"),
        ({"backbone": BackboneSettings()}, "strides must have 3 values"),
        ({"anchors": AnchorSettings()}, "anchor sizes must have 3 values"),
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"image_channels": 0}, "greater than or equal to 1"),
    ],
)
def test_models_that_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        three_dimensional(**change)


def test_shares_lie_between_nothing_and_all() -> None:
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValidationError):
            DetectionSettings(nms_iou=wrong)
        with pytest.raises(ValidationError):
            InferenceSettings(tile_overlap=wrong)
    with pytest.raises(ValidationError):
        InferenceSettings(tile_overlap=1.0)  # tiles that never move on

"""Models for tests: networks that take milliseconds and, with random weights, report whatever they see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from medmaskrcnn.hub.model_file import save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    InferenceSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)

STRIDES = {2: ((4, 4), (8, 8), (16, 16), (32, 32)), 3: ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))}
Changes = Mapping[str, Any]
NONE: Changes = MappingProxyType({})


def tiny_settings(
    dims: int = 2,
    *,
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128),
    model: Changes = NONE,
    backbone: Changes = NONE,
    rpn: Changes = NONE,
    roi: Changes = NONE,
    detection: Changes = NONE,
    card: Changes = NONE,
    preprocess: Changes = NONE,
    inference: Changes = NONE,
) -> ModelFileSettings:
    """Settings of a tiny model in ``dims`` dimensions; what a test wants otherwise, by part and name.

    Args:
        sizes: Edge of the cubic anchors of each level, in voxels.
    """
    strides = backbone.get("strides", STRIDES[dims])
    small = {"name": "light", "light_channels": (8, 8, 8, 8), "fpn_channels": 8, "strides": strides}
    network = {
        "spatial_dims": dims,
        "class_names": ("liver", "left kidney"),
        "backbone": BackboneSettings(**small | dict(backbone)),
        "anchors": AnchorSettings(sizes=tuple((size,) * dims for size in sizes)),
        "rpn": RPNSettings(**dict(rpn)),
        "roi": RoISettings(**{"box_hidden": 16, "mask_channels": 8, "mask_convs": 1} | dict(roi)),
        "detection": DetectionSettings(**{"score_thresh": 0.0, "detections_per_img": 5} | dict(detection)),
    }
    return ModelFileSettings(
        card=ModelCard(**{"name": "tiny", "licence": "CC0-1.0"} | dict(card)),
        model=ModelSettings(**network | dict(model)),
        preprocess=PreprocessSettings(**{"percentiles": (1, 99), "pad_multiple": strides[-1]} | dict(preprocess)),
        inference=InferenceSettings(**{"score": 0.0} | dict(inference)),
    )


def save_tiny(settings: ModelFileSettings, path: Path, *, seed: int = 0) -> Path:
    """A model file with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    save_model(build_model(settings.model), settings, path)
    return path

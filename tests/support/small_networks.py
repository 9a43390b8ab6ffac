"""Small models for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)

STRIDES = {2: ((4, 4), (8, 8), (16, 16), (32, 32)), 3: ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))}


def _tiny_model(dims: int = 2, **changes: Any) -> ModelSettings:
    sizes = (6, 10, 16, 24, 32)
    settings: dict[str, Any] = {
        "spatial_dims": dims,
        "class_names": ("liver", "kidney"),
        "backbone": BackboneSettings(
            name="light", light_channels=(8, 8, 16, 16), strides=STRIDES[dims], fpn_channels=8
        ),
        "anchors": AnchorSettings(sizes=tuple((s / 2, s, s) if dims == 3 else (s, s) for s in sizes)),
        "rpn": RPNSettings(pre_nms_top_n=60, post_nms_top_n=30, batch_per_image=32),
        "roi": RoISettings(
            box_size=4, mask_size=4, box_hidden=24, mask_channels=8, mask_convs=1, canonical_size=24.0,
            batch_per_image=16, max_mask_rois=4,
        ),
        "detection": DetectionSettings(score_thresh=0.05, detections_per_img=9),
    }  # fmt: skip
    return ModelSettings(**{**settings, **changes})


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., ModelSettings]:
    """``tiny_model(dims, with_masks=..., ...)``: settings of a model that runs in milliseconds."""
    return _tiny_model


@pytest.fixture(scope="session")
def tiny_file() -> Callable[..., ModelFileSettings]:
    """``tiny_file(dims, ...)``: the same as they stand in a model's file, with what belongs to them."""

    def make(dims: int = 2, **changes: Any) -> ModelFileSettings:
        preprocess = PreprocessSettings(percentiles=(1, 99), pad_multiple=STRIDES[dims][-1])
        return ModelFileSettings(card=ModelCard(name="tiny"), model=_tiny_model(dims, **changes), preprocess=preprocess)

    return make


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)

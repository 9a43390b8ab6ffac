"""Tiny models with random but always the same weights, and a small scan with bright blobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmaskrcnn.config import (
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
from medmaskrcnn.detect.loaded_model import LoadedModel, load_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.model_file import save_model
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

STRIDES_3D = ((2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32))
STRIDES_2D = ((4, 4), (8, 8), (16, 16), (32, 32))


def tiny_settings(
    dims: int,
    *,
    context: int = 0,
    card: dict[str, Any] | None = None,
    preprocess: dict[str, Any] | None = None,
    inference: dict[str, Any] | None = None,
    per_image: int = 6,
) -> ModelFileSettings:
    """Settings of a model that takes a fraction of a second and reports whatever it sees."""
    model = ModelSettings(
        spatial_dims=dims,
        context_slices=context,
        class_names=("liver", "tumour"),
        backbone=BackboneSettings(
            name="light",
            light_channels=(8, 8, 8, 8),
            fpn_channels=8,
            strides=STRIDES_3D if dims == 3 else STRIDES_2D,
        ),
        anchors=AnchorSettings(sizes=tuple((size,) * dims for size in (6, 10, 16, 24, 32))),
        rpn=RPNSettings(pre_nms_top_n=30, post_nms_top_n=12),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1, canonical_size=20.0),
        detection=DetectionSettings(candidate_score=0.01, per_image=per_image),
    )
    prepared = {"percentiles": (1, 99), "mean": (0.5,), "std": (0.2,), "pad_multiple": model.backbone.strides[-1]}
    return ModelFileSettings(
        card=ModelCard(**{"name": "tiny", "licence": "CC0-1.0", **(card or {})}),
        model=model,
        preprocess=PreprocessSettings(**{**prepared, **(preprocess or {})}),
        inference=InferenceSettings(**{"score": 0.0, **(inference or {})}),
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    """``tiny_model(dims, context=..., card=..., preprocess=..., inference=...)``, saved and loaded again."""
    made: dict[str, LoadedModel] = {}

    def make(dims: int, **what: Any) -> LoadedModel:
        settings = tiny_settings(dims, **what)
        key = settings.model_dump_json()
        if key not in made:
            path: Path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
            save_model(_opinionated(settings), settings, path)
            made[key] = load_model(path, device="cpu")
        return made[key]

    return make


def _opinionated(settings: ModelFileSettings) -> MaskRCNN:
    """A network whose random last layers make scores differ, both classes occur, and masks neither full nor blank."""
    torch.manual_seed(0)
    network = build_model(settings.model)
    with torch.no_grad():
        background, liver, tumour = network.box_head.classes.weight
        background.normal_()
        liver.normal_()
        tumour.copy_(liver + 0.02 * torch.randn(liver.shape))  # so like the liver that each is the better one somewhere
        network.mask_head.logits.weight.normal_(std=3.0)
        network.mask_head.logits.bias.zero_()
    return network


UPRIGHT = np.array([[0, 0, -1.0], [0, -1.0, 0], [1.0, 0, 0]])  # D up, H to the back, W to the left: SPL already


def blobs(shape: tuple[int, int, int], affine: np.ndarray | None = None, **what: Any) -> Volume:
    """A noisy scan with bright boxes in it; nothing in it is symmetric."""
    rng = np.random.default_rng(3)
    array = rng.normal(100, 12, (1, *shape)).astype(np.float32)
    d, h, w = shape
    array[0, d // 6 : d // 2, h // 5 : h // 2, w // 6 : w // 3] += 150
    array[0, d // 3 : -d // 6, h // 2 : -h // 5, w // 2 : -w // 8] += 90
    if affine is None:
        affine = np.eye(4)
        affine[:3, :3] = UPRIGHT @ np.diag([3.0, 1.2, 0.9])
    return Volume(array, Grid(shape, affine), **what)


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., Volume]:
    return blobs

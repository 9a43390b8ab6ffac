"""Tiny models with random but always the same weights, a scan with bright blobs, objects made of boxes of voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_settings

from medmaskrcnn.hub.loaded_model import LoadedModel, load_model
from medmaskrcnn.hub.model_file import save_model
from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

STRIDES_3D = ((2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32))


def settings_of(
    dims: int,
    *,
    context: int = 0,
    card: dict[str, Any] | None = None,
    preprocess: dict[str, Any] | None = None,
    inference: dict[str, Any] | None = None,
    detections_per_img: int = 6,
) -> ModelFileSettings:
    return tiny_settings(
        dims,
        sizes=(6, 10, 16, 24, 32),
        model={"context_slices": context, "class_names": ("liver", "tumour")},
        backbone={"strides": STRIDES_3D} if dims == 3 else {},
        rpn={"pre_nms_top_n": 30, "post_nms_top_n": 12},
        roi={"box_size": 3, "mask_size": 4, "canonical_size": 20.0},
        detection={"score_thresh": 0.01, "detections_per_img": detections_per_img},
        card=card or {},
        preprocess={"mean": (0.5,), "std": (0.2,), **(preprocess or {})},
        inference=inference or {},
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    """``tiny_model(dims, context=..., card=..., preprocess=..., inference=...)``, saved and loaded again."""
    made: dict[str, LoadedModel] = {}

    def make(dims: int, **what: Any) -> LoadedModel:
        settings = settings_of(dims, **what)
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


def found_from(dense: np.ndarray, *, label: int = 0, score: float = 0.9) -> Detection:
    """The object that a boolean scan ``(D, H, W)`` shows, its box tight."""
    mask = Mask((0, 0, 0), dense.astype(bool)).tight()
    return Detection(label, score, mask.box, mask)


def dense_of(found: Detection, shape: tuple[int, int, int]) -> np.ndarray:
    """The boolean scan that shows an object."""
    return found.mask.dense(shape)


@pytest.fixture(scope="session")
def as_found() -> Callable[..., Detection]:
    return found_from


@pytest.fixture(scope="session")
def as_dense() -> Callable[..., np.ndarray]:
    return dense_of

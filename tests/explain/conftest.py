"""Models that take a fraction of a second, with random but always the same weights, and a scan with bright blobs."""

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
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

STRIDES_3D = ((2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32))


def _settings(dims: int, *, context: int = 0, with_masks: bool = True, **changes: Any) -> ModelFileSettings:
    return tiny_settings(
        dims,
        sizes=(6, 10, 16, 24, 32),
        model={"context_slices": context, "with_masks": with_masks, "class_names": ("liver", "tumour <b>")},
        backbone={"strides": STRIDES_3D} if dims == 3 else {},
        rpn={"pre_nms_top_n": 30, "post_nms_top_n": 12},
        roi={"box_size": 3, "mask_size": 4, "canonical_size": 20.0},
        detection={"score_thresh": changes.get("score_thresh", 0.01), "detections_per_img": 6},
        card={"licence": "", "domain": changes.get("domain")},
        inference={"tile": changes.get("tile", (160, 160, 160))},
    )


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny_file(dims, context=, with_masks=, score_thresh=, tile=, domain=)``: path of a model's file."""

    def make(dims: int, **what: Any) -> Path:
        settings = _settings(dims, **what)
        torch.manual_seed(0)
        network = build_model(settings.model)
        with torch.no_grad():
            network.box_head.classes.weight.normal_()
            if network.mask_head is not None:
                network.mask_head.logits.weight.normal_(std=3.0)
        path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
        save_model(network, settings, path)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_file: Callable[..., Path]) -> Callable[..., LoadedModel]:
    """The same, loaded."""
    return lambda dims, **what: load_model(tiny_file(dims, **what), device="cpu")


@pytest.fixture(scope="session")
def blobs() -> Volume:
    """A noisy scan of 20 x 44 x 52 voxels with two bright boxes in it; nothing in it is symmetric."""
    array = np.random.default_rng(3).normal(100, 12, (1, 20, 44, 52)).astype(np.float32)
    array[0, 3:10, 9:22, 9:17] += 150
    array[0, 7:17, 22:36, 26:46] += 90
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1.0], [0, -1.0, 0], [1.0, 0, 0]]) @ np.diag([3.0, 1.2, 0.9])
    return Volume(array, Grid((20, 44, 52), affine), modality="CT")

"""The networks that the ablations alone build, and what the library says to files and plans that ask for them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from ablation_networks import (
    SoftmaxMaskRCNN,
    build_ablation,
    softmax_log_odds,
    softmax_mask_loss,
)
from ablations import LOSSES, ROWS, Row, plan_of
from network_checks import SHAPE, TERMS, Tiny, check_learns_and_detects, objects, variant

from medmaskrcnn.errors import MedMaskRCNNError, ModelFileError
from medmaskrcnn.hub.model_file import read_model, read_model_settings
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.losses import mask_loss
from medmaskrcnn.settings import LossSettings
from medmaskrcnn.training.plan import Plan, read_plan
from medmaskrcnn.training.run import train

OLD_FILE = Path(__file__).with_name("c5-softmax.safetensors")
"""A tiny model with pyramid ``c5`` and masks by softmax, written while the library still built such networks."""


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("pyramid", "pooler", "activation"),
    [("c4", "pool", "softmax"), ("c5", "align", "softmax"), ("c5", "pool", "sigmoid"), ("fpn", "pool", "softmax")],
)
def test_they_learn_and_detect(tiny_model: Tiny, dims: int, pyramid: str, pooler: str, activation: str) -> None:
    settings = variant(tiny_model, dims, pyramid, pooler=pooler, mask_activation=activation)
    network = build_ablation(settings)
    assert isinstance(network, SoftmaxMaskRCNN) == (activation == "softmax")
    check_learns_and_detects(network, dims)


def test_c5_is_one_map(tiny_model: Tiny) -> None:
    network = build_ablation(variant(tiny_model, 3, "c5")).eval()
    made: dict[str, Any] = {}
    network.detect(torch.randn(1, 1, *SHAPE[3]), watch=made.__setitem__)
    assert [tuple(level.shape[2:]) for level in made["pyramid"]] == [(2, 2, 2)]
    assert len(made["rpn"][2][0]) == 15 * 8, "all anchors lie on it"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_of_the_table_is_a_network(row: Row, tmp_path: Path) -> None:
    if row.balance_like:
        (tmp_path / row.balance_like).mkdir()
        losses = f"step,{','.join(TERMS)},total,learning_rate,seconds\n1,1,2,3,4,5,15,1,1\n"
        (tmp_path / row.balance_like / LOSSES).write_text(losses)
    plan = plan_of(row, tmp_path, argparse.Namespace(steps=2, seed=0))
    model = plan.model.model_copy(update={"class_names": ("a", "b")})
    dims = model.spatial_dims
    images = torch.randn(1, model.input_channels, *SHAPE[dims])
    terms = build_ablation(model).losses(images, [objects(dims)], seeds=[0])
    assert all(term.isfinite() for term in terms.values())


def test_competing_classes_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0]]).view(1, 2, 1)  # one bin, two classes, background 0
    e = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    torch.testing.assert_close(softmax_log_odds(logits, torch.tensor([1])).sigmoid().flatten(), e[2:3])
    loss = softmax_mask_loss(logits, torch.tensor([1]), torch.tensor([[0.75]]))
    torch.testing.assert_close(loss.total, -(0.75 * e[2].log() + 0.25 * e[0].log()))
    assert loss.count == 1


def test_with_one_class_there_is_nothing_to_compete_with() -> None:
    logits, truth = torch.randn(5, 1, 6, 6), torch.rand(5, 6, 6)
    labels = torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(softmax_log_odds(logits, labels), logits[:, 0])
    torch.testing.assert_close(softmax_mask_loss(logits, labels, truth).total, mask_loss(logits[:, 0], truth).total)


def test_competing_masks_without_regions_and_with_dice(tiny_model: Tiny) -> None:
    empty = torch.zeros(0, 2, 4, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, 4)
    assert softmax_mask_loss(*empty).total == 0
    settings = variant(tiny_model, 2, "fpn", mask_activation="softmax")
    settings = settings.model_copy(update={"loss": LossSettings(mask_dice=1.0)})
    terms = build_ablation(settings).losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)])
    assert 0 < terms["mask_dice"].item() < 1


def test_the_library_reads_an_old_file_and_says_where_its_network_went() -> None:
    model = read_model_settings(OLD_FILE).model
    assert (model.backbone.pyramid, model.roi.mask_activation) == ("c5", "softmax")
    with pytest.raises(ModelFileError, match=r"c5-softmax.*pyramid 'c5'.*benchmarks/ablation_networks\.py"):
        read_model(OLD_FILE)


def test_an_old_file_still_runs_here() -> None:
    network, _ = read_model(OLD_FILE, build=build_ablation)
    (found,) = network.detect(torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64))
    assert len(found.boxes) == 30
    torch.testing.assert_close(found.boxes[0], torch.tensor([4.9012, 42.6369, 26.8322, 53.2658]), atol=1e-3, rtol=0)
    assert found.mask_probabilities is not None
    wanted = torch.tensor([0.2142, 0.3333, 0.2583, 0.3333])  # what it gave when it was written
    torch.testing.assert_close(found.mask_probabilities[0, 2], wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("what", ["c5", "softmax"])
def test_the_library_refuses_to_build_and_to_train_them(tiny_model: Tiny, tmp_path: Path, what: str) -> None:
    changes = {"pyramid": "c5"} if what == "c5" else {"pyramid": "fpn", "mask_activation": "softmax"}
    settings = variant(tiny_model, 2, **changes)
    with pytest.raises(MedMaskRCNNError, match=f"'{what}' are not part of the library"):
        build_model(settings)
    values = read_plan("nuclei").model_dump()
    values["model"]["backbone"]["pyramid"] = changes["pyramid"]
    values["model"]["roi"]["mask_activation"] = changes.get("mask_activation", "sigmoid")
    with pytest.raises(MedMaskRCNNError, match=f"'{what}' are not part of the library"):
        train(tmp_path / "none.json", Plan.model_validate(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()

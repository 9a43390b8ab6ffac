"""The training loop: it learns, it can be interrupted, and it says where it broke."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medmaskrcnn.config import (
    AnchorSettings,
    BackboneSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.models.model_file import read_model
from medmaskrcnn.training import loop as loop_module
from medmaskrcnn.training.augment import AugmentSettings
from medmaskrcnn.training.cases import LabelledCase, Occupancy
from medmaskrcnn.training.loop import LoopSettings, train

AUGMENT = AugmentSettings(patch=(1, 64, 64), rotate_degrees=10, zoom=0.1, noise=0.05)


def tiny_settings() -> ModelFileSettings:
    model = ModelSettings(
        class_names=("liver", "tumour"),
        backbone=BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
        anchors=AnchorSettings(sizes=((8, 8), (16, 16), (24, 24), (32, 32), (48, 48))),
        rpn=RPNSettings(pre_nms_top_n=50, post_nms_top_n=20, batch_per_image=32),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1, batch_per_image=16),
    )
    return ModelFileSettings(card=ModelCard(name="tiny"), model=model, preprocess=PreprocessSettings(mean=(0.5,)))


def make_case(seed: int) -> LabelledCase:
    random = torch.Generator().manual_seed(seed)
    image = 0.1 * torch.randn((1, 4, 64, 64), generator=random)
    image[:, :, 10:34, 12:40] += 1
    image[:, :, 40:52, 30:44] -= 1
    objects = tuple(
        Occupancy(label, (0, h, w), torch.full((4, height, width), 255, dtype=torch.uint8))
        for label, (h, w, height, width) in enumerate(((10, 12, 24, 28), (40, 30, 12, 14)))
    )
    return LabelledCase(f"case {seed}", image.half(), objects)


CASES = [make_case(1), make_case(2)]


def run(folder: Path, name: str, **loop: object) -> dict[str, torch.Tensor]:
    wanted = LoopSettings(**{"steps": 6, "batch": 2, "warmup": 2, "bf16": False, "learning_rate": 5e-3, **loop})
    out = folder / f"{name}.safetensors"
    assert train(CASES, tiny_settings(), AUGMENT, wanted, out, checkpoint_folder=folder / name) == out
    return load_file(str(out))


def losses(folder: Path) -> list[dict[str, float]]:
    with (folder / "losses.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_tiny_model_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr(loop_module, "_LOG_EVERY", 1)
    run(tmp_path, "a", steps=24, bf16=bf16, warmup=3)
    table = losses(tmp_path / "a")
    assert [row["step"] for row in table] == list(range(1, 25))
    terms = ("objectness", "rpn_box", "classification", "box", "mask")
    totals = [sum(row[term] for term in terms) for row in table]
    assert all(total < 1e4 for total in totals)  # finite
    assert sum(totals[-4:]) < 0.8 * sum(totals[:4])
    model, settings = read_model(tmp_path / "a.safetensors")
    assert not model.training and settings.training["steps"] == 24 and settings.training["cases"] == 2


def test_the_same_run_twice_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first = run(tmp_path, "a")
    torch.manual_seed(99)  # what went before has no say
    assert equal(first, run(tmp_path, "b"))
    assert not equal(first, run(tmp_path, "c", seed=1))


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("broken_at", [2, 5])
def test_an_interrupted_run_ends_where_the_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    monkeypatch.setattr(loop_module, "_SAVE_EVERY", 2)
    unbroken = run(tmp_path, "unbroken")
    update = loop_module._update

    def unplugged(model, optimizer, batch, step, settings):
        if step == broken_at:
            raise Interrupted
        return update(model, optimizer, batch, step, settings)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(loop_module, "_update", unplugged)
        run(tmp_path, "broken")
    assert not (tmp_path / "broken.safetensors").exists()
    checkpoint = torch.load(tmp_path / "broken" / "last.pt", weights_only=True)
    assert checkpoint["step"] == broken_at // 2 * 2
    torch.manual_seed(1234)
    assert equal(run(tmp_path, "broken"), unbroken)


def test_a_finished_run_is_only_saved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, "a")
    monkeypatch.setattr(loop_module, "_update", None)  # would fail if called
    assert equal(run(tmp_path, "a"), first)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = loop_module.draw_sample
    drawn = []

    def poisoned(*args, **kwargs):
        image, targets = draw(*args, **kwargs)
        drawn.append(1)
        return (image * float("nan") if len(drawn) > 4 else image), targets  # two samples a step

    monkeypatch.setattr(loop_module, "draw_sample", poisoned)
    with pytest.raises(FloatingPointError, match=r"the loss became nan at step 2: .*objectness"):
        run(tmp_path, "a")
    assert not (tmp_path / "a.safetensors").exists()


def test_no_cases(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no cases to train on"):
        train([], tiny_settings(), AUGMENT, LoopSettings(steps=1), tmp_path / "x", checkpoint_folder=tmp_path)


def test_the_average_of_the_weights_is_what_is_saved(tmp_path: Path) -> None:
    run(tmp_path, "a")
    state = torch.load(tmp_path / "a" / "last.pt", weights_only=True)
    saved = load_file(str(tmp_path / "a.safetensors"))
    name = "box_head.classes.weight"
    assert torch.equal(saved[name], state["average"][name].half())
    assert not torch.equal(saved[name], state["model"][name].half())


def test_the_learning_rate_rises_and_falls() -> None:
    settings = LoopSettings(steps=100, warmup=10)
    rates = [loop_module._schedule(step, settings) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0.01 <= rates[-1] < 0.02

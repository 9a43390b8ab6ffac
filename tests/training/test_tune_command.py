"""``medmaskrcnn tune`` with real trainings of two steps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelCard, ModelSettings, RoISettings, RPNSettings
from medmaskrcnn.training.plan import AugmentSettings, LoopSettings, Plan, plan_text, read_plan

pytest.importorskip("optuna")

SIDE = 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures of a bright square, one of them to validate on; a plan of a tiny network; a space."""
    cases = []
    for number, split in enumerate(("train", "train", "val")):
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[10 + number : 40, 12:44] = 1
        Image.fromarray(label * 150 + 50).save(tmp_path / f"{number}.png")
        Image.fromarray(label).save(tmp_path / f"{number}_label.png")
        files = {"image": f"{number}.png", "label": f"{number}_label.png"}
        instances = [{"value": 1, "class": "square"}]
        cases.append({"id": f"c{number}", "patient": f"p{number}", "split": split, "instances": instances, **files})
    manifest = {"version": 1, "name": "squares", "class_names": ["square"], "cases": cases}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    model = ModelSettings(
        class_names=("square",),
        backbone=BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
        anchors=AnchorSettings(sizes=((8, 8), (16, 16), (24, 24), (32, 32), (48, 48))),
        rpn=RPNSettings(pre_nms_top_n=50, post_nms_top_n=20, batch_per_image=32),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1, batch_per_image=16),
    )
    plan = Plan(
        card=ModelCard(name="tiny"),
        model=model,
        preprocess={"orientation": "as_stored", "value_range": (0, 255)},
        augment=AugmentSettings(patch=(1, SIDE, SIDE)),
        train=LoopSettings(steps=900, batch=1, precision="fp32"),
    )
    (tmp_path / "plan.yaml").write_text(plan_text(plan))
    (tmp_path / "space.yaml").write_text("train.learning_rate: [0.001, 0.002]\ntrain.warmup_steps: [1, -5]\n")
    return tmp_path


def tune(data: Path, *more: object) -> tuple[int, str]:
    paths = ["--plan", data / "plan.yaml", "--space", data / "space.yaml", "-o", data / "search"]
    options = ["--method", "grid", "--steps", 2, "--device", "cpu", "--workers", 0, "--threads", 1, *more]
    result = CliRunner().invoke(app, [str(a) for a in ("tune", data / "manifest.json", *paths, *options)])
    return result.exit_code, result.stdout + result.stderr


@pytest.mark.slow
def test_trainings_are_scored_and_taken_up_again(data: Path) -> None:
    code, text = tune(data, "--trials", 2)
    assert code == 0, text
    assert "trial 1 failed" in text and "these values make no plan: train.warmup_steps" in text
    code, text = tune(data, "--trials", 4)
    assert code == 0, text
    assert "4 trials" in text and "best: " in text and "trial 0 begins" not in text, "the first two stand"
    with (data / "search" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows if row["score"]]
    assert len(rows) == 4 and len(scores) == 2 and all(0 <= score <= 1 for score in scores)
    for row in rows:
        if row["score"]:
            losses = (data / "search" / row["folder"] / "losses.csv").read_text().splitlines()
            assert len(losses) == 3, "two steps and the heading"
            assert not (data / "search" / row["folder"] / "checkpoint.pt").exists()
    best = read_plan(data / "search" / "best.yaml")
    assert best.train.steps == 900, "the steps of the search are not those of the plan"
    assert best.train.warmup_steps == 1 and best.train.learning_rate in (0.001, 0.002)
    assert list((data / "search" / "cache").iterdir()), "cases are prepared once for all"


def test_wrong_uses_are_told(data: Path) -> None:
    (data / "space.yaml").write_text("train.lerning_rate: [1, 2]\n")
    code, text = tune(data)
    assert code == 1 and "a plan has no value train.lerning_rate; train has steps, hours" in text
    (data / "space.yaml").write_text("train.steps: [1, 2]\n")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["cases"][2]["split"] = "train"
    (data / "manifest.json").write_text(json.dumps(manifest))
    code, text = tune(data)
    assert code == 1 and "has no case to validate on" in text


def test_a_search_in_which_all_fails_ends_with_an_error(data: Path) -> None:
    (data / "space.yaml").write_text("train.batch: [-1, -2]\n")
    code, text = tune(data)
    assert code == 1 and "no trial of 2 gave a score" in text

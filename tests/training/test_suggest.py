"""Scans to label next: agreement of looks worked by hand, the order, and the command on real files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.cli.main import app
from medmaskrcnn.hub.loaded_model import load_model
from medmaskrcnn.hub.model_file import save_members, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.training.suggest.agreement import agreement
from medmaskrcnn.training.suggest.rank import order
from medmaskrcnn.training.suggest.views import looks

SHAPE = (1, 40, 40)
Tiny = Callable[..., ModelFileSettings]


def seen(*objects: tuple[int, float, int, int, int]) -> Instances:
    """What a look saw: ``(class, score, row, column, side)`` of squares."""
    masks = [Mask((0, h, w), np.ones((1, n, n), bool)) for _, _, h, w, n in objects]
    labels, scores = [c for c, *_ in objects], [s for _, s, *_ in objects]
    return Instances.from_masks(Grid(SHAPE, np.eye(4)), ("a", "b"), labels, masks, scores=scores)


def test_looks_that_agree_are_sure() -> None:
    (one,) = agreement([seen((0, 0.99, 5, 5, 10))] * 3)
    assert one.score == pytest.approx(0.99) and one.overlap == 1.0 and one.uncertainty < 0.1


def test_an_object_that_one_of_two_looks_saw_is_unsure() -> None:
    (one,) = agreement([seen(), seen((1, 1.0, 5, 5, 10))])
    assert one.label == 1 and one.score == pytest.approx(0.5) and one.uncertainty == pytest.approx(1.0)


def test_outlines_that_differ_are_unsure() -> None:
    (one,) = agreement([seen((0, 1.0, 5, 5, 10)), seen((0, 1.0, 5, 10, 10))])  # they share half of each
    assert one.overlap == pytest.approx(50 / 150) and one.uncertainty == pytest.approx(1 - 50 / 150, abs=1e-3)


def test_objects_are_matched_within_their_class_and_once() -> None:
    first = seen((0, 0.9, 5, 5, 10), (1, 0.8, 5, 5, 10), (0, 0.05, 25, 25, 8))
    second = seen((0, 0.7, 5, 6, 10), (0, 0.6, 5, 7, 10))
    found = {(one.label, round(one.score, 3)) for one in agreement([first, second])}
    assert found == {(0, 0.8), (1, 0.4), (0, 0.3)}
    assert agreement([seen(), seen()]) == []


def test_unsure_scans_come_first_and_their_likes_later() -> None:
    features = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]])
    ranked, distances = order(np.array([4.0, 3.9, 2.0, 1.0]), features)
    assert ranked[:2] == [0, 2] and sorted(ranked) == [0, 1, 2, 3]
    assert distances[0] == 1.0 and distances[2] > 0.5 > distances[1]
    ranked, _ = order(np.array([4.0, 3.9, 2.0, 1.0]), features, labelled=features[:1])
    assert ranked[0] == 2 and ranked[-1] == 0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_scans_that_are_all_alike_are_ranked_by_uncertainty(count: int) -> None:
    uncertainty = np.random.default_rng(0).permutation(count).astype(float)
    ranked, _ = order(uncertainty, np.ones((count, 3)))
    assert sorted(ranked) == list(range(count)) and ranked[0] == int(np.argmax(uncertainty))


@pytest.fixture
def model(tiny_file: Tiny, tmp_path: Path) -> Path:
    """A model file of one network with random weights."""
    settings = tiny_file()
    torch.manual_seed(0)
    save_model(build_model(settings.model), settings, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of noise of growing contrast, and a file that is no picture."""
    random = np.random.default_rng(0)
    (tmp_path / "unlabelled").mkdir()
    for number in range(6):
        picture = random.normal(120, 5 + 10 * number, (64, 64)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "unlabelled" / f"p{number}.png")
    return tmp_path / "unlabelled"


def test_looks_are_folds_where_there_are_three(tiny_file: Tiny, model: Path, tmp_path: Path) -> None:
    one = load_model(model, device="cpu", precision="fp32")
    assert len(looks(one)) == 4
    assert len(looks(load_model(model, device="cpu", precision="fp32", flips=("H",)))) == 5
    settings = tiny_file()
    several = [build_model(settings.model) for _ in range(3)]
    save_members(several, settings.model_copy(update={"members": 3}), tmp_path / "folds.safetensors")
    assert len(looks(load_model(tmp_path / "folds.safetensors", device="cpu", precision="fp32"))) == 3


def test_scans_are_ranked_and_written(model: Path, folder: Path, tmp_path: Path) -> None:
    options = ["--device", "cpu", "--precision", "fp32"]
    result = CliRunner().invoke(app, ["suggest", str(model), str(folder), "-o", str(tmp_path / "next.csv"), *options])
    assert result.exit_code == 0, result.output
    with (tmp_path / "next.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, 7)]
    assert {Path(row["scan"]).name for row in rows} == {f"p{n}.png" for n in range(6)}
    asked = ["suggest", str(model), str(folder), "--json", *options]
    document = json.loads(CliRunner().invoke(app, asked).stdout)
    assert [case["scan"] for case in document["cases"]] == [row["scan"] for row in rows], "the same twice"
    assert document["version"] == 1 and document["failed"] == []


def test_what_is_labelled_already_comes_late(model: Path, folder: Path) -> None:
    found = medmaskrcnn.suggest(model, folder, labelled=[folder / "p5.png"])
    last = min(found.cases, key=lambda case: case.distance)
    assert Path(last.scan).name == "p5.png" and last.distance == pytest.approx(0.0, abs=1e-6)


def test_a_scan_that_cannot_be_used_is_told_and_the_others_are_ranked(model: Path, folder: Path) -> None:
    (folder / "p2.png").write_bytes((folder / "p2.png").read_bytes()[:200])
    result = CliRunner().invoke(app, ["suggest", str(model), str(folder), "--device", "cpu"])
    assert "p2.png" not in result.stdout.split("Label these next")[1] and "p3.png" in result.stdout


def test_wrong_use_is_told(model: Path, folder: Path, tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["suggest", str(model), str(folder), "-o", str(tmp_path / "next.txt")])
    assert wrong.exit_code == 2 and ".csv or .json" in wrong.output
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(app, ["suggest", str(model), str(tmp_path / "empty")]).exit_code != 0

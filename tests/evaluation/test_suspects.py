"""Suspected label errors: each kind worked by hand, ten planted among sound labels, and the command."""

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

from medmaskrcnn.cli.main import app
from medmaskrcnn.evaluation.evaluate import CasePair
from medmaskrcnn.evaluation.label_errors import find_label_errors
from medmaskrcnn.evaluation.suspects import Suspect, ranked, suspects_of
from medmaskrcnn.hub.loaded_model import load_model
from medmaskrcnn.hub.model_file import save_members, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask

NAMES = ("a", "b")
Box = tuple[int, int, int, int, int]  # class, row, column, height, width
Tiny = Callable[..., ModelFileSettings]


def instances(*boxes: Box, scores: list[float] | None = None, shape: tuple[int, int, int] = (1, 60, 60)) -> Instances:
    masks = [Mask((0, h, w), np.ones((1, m, n), bool)) for _, h, w, m, n in boxes]
    return Instances.from_masks(Grid(shape, np.eye(4)), NAMES, [c for c, *_ in boxes], masks, scores=scores)


def pair(labels: list[Box], found: list[Box], scores: list[float] | None = None, **more: object) -> CasePair:
    predicted = instances(*found, scores=scores or [0.95] * len(found))
    return CasePair("case", "p", predicted, instances(*labels), **more)


def first(labels: list[Box], found: list[Box], scores: list[float] | None = None) -> Suspect:
    return suspects_of(pair(labels, found, scores))[0]


SOUND: Box = (0, 40, 40, 12, 12)


@pytest.mark.parametrize(
    ("kind", "labels", "found"),
    [
        ("missing", [SOUND], [SOUND, (1, 5, 5, 10, 10)]),
        ("extra", [SOUND, (1, 5, 5, 10, 10)], [SOUND]),
        ("class", [SOUND, (1, 5, 5, 10, 10)], [SOUND, (0, 5, 5, 10, 11)]),
        ("outline", [SOUND, (0, 5, 5, 10, 10)], [SOUND, (0, 5, 11, 10, 10)]),
        ("merged", [SOUND, (0, 5, 5, 10, 21)], [SOUND, (0, 5, 5, 10, 10), (0, 5, 16, 10, 10)]),
        ("split", [SOUND, (0, 5, 5, 10, 10), (0, 5, 16, 10, 10)], [SOUND, (0, 5, 5, 10, 21)]),
    ],
)
def test_each_kind_is_told(kind: str, labels: list[Box], found: list[Box]) -> None:
    suspects = suspects_of(pair(labels, found))
    assert [one.kind for one in suspects] == [kind], "one suspect, whatever else it could be called"
    assert suspects[0].suspicion > 0.5
    d, h, w = suspects[0].centre_vox
    assert d == 0 and h == 10 and 5 <= w <= 20


def test_labels_that_the_model_repeats_are_not_suspect() -> None:
    assert suspects_of(pair([SOUND, (1, 5, 5, 10, 10)], [SOUND, (1, 5, 6, 10, 10)])) == []
    assert suspects_of(pair([], [])) == []


def test_the_surer_the_prediction_the_more_suspect_the_label() -> None:
    sure, unsure = (first([], [(0, 5, 5, 10, 10)], [score]) for score in (0.9, 0.3))
    assert sure.suspicion == pytest.approx(0.9) and unsure.suspicion == pytest.approx(0.3)
    assert sure.loss == pytest.approx(-np.log(1e-3))
    kept = first([(0, 5, 5, 10, 10)], [(0, 5, 5, 10, 10)], [0.6])
    assert kept.kind == "extra" and kept.suspicion == pytest.approx(0.4) and kept.loss == pytest.approx(-np.log(0.6))


def test_what_was_not_annotated_or_is_to_be_ignored_is_not_suspect() -> None:
    found = [SOUND, (1, 5, 5, 10, 10)]
    assert suspects_of(pair([SOUND], found, annotated=("a",))) == []
    assert suspects_of(pair([SOUND, (1, 3, 3, 15, 15)], found, crowd=np.array([False, True]))) == []


def test_a_frequent_disagreement_is_less_suspect() -> None:
    missed = [first([(0, 5, 5, 10, 10)], []) for _ in range(20)]
    other = first([(1, 5, 5, 10, 10)], [(0, 5, 5, 10, 10)], [0.9])
    assert other.suspicion < missed[0].suspicion
    assert ranked([*missed, other], 100)[0].kind == "class"


def test_planted_errors_are_among_the_first() -> None:
    """Twenty cases with 16 objects each, whose predictions are unsure and imprecise; ten labels are spoilt."""
    random = np.random.default_rng(0)
    suspects, spoilt = [], set()
    for number in range(20):
        truth = [(int(random.integers(2)), 2 + 15 * h, 2 + 15 * w, 8, 8) for h in range(4) for w in range(4)]
        found = [(c, h + int(random.integers(-1, 2)), w + int(random.integers(-1, 2)), m, n) for c, h, w, m, n in truth]
        labels = list(truth)
        if number < 10:
            c, h, w, m, n = labels[5]
            spoilt.add(f"c{number}")
            labels[5:6] = [[], [(1 - c, h, w, m, n)], [(c, h + 6, w, m, n)], [(c, h, w, m, n + 15)], []][number % 5]
            if number % 5 == 3:
                found[6] = (c, *found[6][1:])
                labels[6:7] = []
            if number % 5 == 4:
                labels.insert(5, (c, h, w, m, n))
                found.pop(5)
        scores = random.uniform(0.6, 1.0, len(found)).tolist()
        one = CasePair(f"c{number}", "p", instances(*found, scores=scores), instances(*labels))
        suspects += suspects_of(one)
    best = ranked(suspects, 320)[:10]
    assert len({one.case for one in best} & spoilt) >= 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A manifest of four pictures with two objects each."""
    random, cases = np.random.default_rng(0), []
    for number in range(4):
        label = np.zeros((64, 64), np.uint8)
        label[8:28, 8:28], label[36:56, 30:50] = 1, 2
        Image.fromarray((label * 60 + random.integers(0, 30, label.shape)).astype(np.uint8)).save(
            tmp_path / f"{number}.png"
        )
        Image.fromarray(label).save(tmp_path / f"{number}_label.png")
        instances_ = [{"value": 1, "class": "liver"}, {"value": 2, "class": "kidney"}]
        files = {"image": f"{number}.png", "label": f"{number}_label.png"}
        cases.append(
            {"id": f"c{number}", "patient": f"p{number}", "fold": number % 2, "instances": instances_, **files}
        )
    manifest = {"version": 1, "name": "squares", "class_names": ["liver", "kidney"], "cases": cases}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "manifest.json"


def network(settings: ModelFileSettings, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_model(settings.model)


def test_the_command_writes_tables_and_a_page(tiny_file: Tiny, data: Path, tmp_path: Path) -> None:
    settings = tiny_file()
    save_model(network(settings, 0), settings, tmp_path / "model.safetensors")
    words = ["suspects", str(tmp_path / "model.safetensors"), str(data), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--device", "cpu", "--allow-out-of-domain"])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and {row["case"] for row in rows} == {f"c{n}" for n in range(4)}
    assert [float(row["suspicion"]) for row in rows] == sorted((float(r["suspicion"]) for r in rows), reverse=True)
    with (tmp_path / "out" / "hard_cases.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    page = (tmp_path / "out" / "suspects.html").read_text()
    assert page.count("<figure>") == min(len(rows), 40) + 4 and "data:image/png" in page


def test_a_case_is_judged_by_the_network_that_has_not_learnt_from_it(
    tiny_file: Tiny, data: Path, tmp_path: Path
) -> None:
    settings = tiny_file()
    networks = [network(settings, seed) for seed in (0, 1)]
    save_members(networks, settings.model_copy(update={"members": 2}), tmp_path / "folds.safetensors")
    for seed in (0, 1):
        save_model(networks[seed], settings, tmp_path / f"{seed}.safetensors")
    names = ("folds", "0", "1")
    loaded = [load_model(tmp_path / f"{name}.safetensors", device="cpu", precision="fp32") for name in names]
    both, *alone = [find_label_errors(one, data, pictures=0) for one in loaded]
    figures = {
        key: sorted((s.case, s.kind, round(s.score, 5), s.centre_vox) for s in found.suspects)
        for key, found in (("both", both), (0, alone[0]), (1, alone[1]))
    }
    assert figures["both"] == sorted(
        [s for s in figures[0] if s[0] in ("c0", "c2")] + [s for s in figures[1] if s[0] in ("c1", "c3")]
    )
    assert figures[0] != figures[1], "else the test proves nothing"

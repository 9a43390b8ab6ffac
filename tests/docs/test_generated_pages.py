"""Pages of the site that are made from files: the table of ablations, the cards, the imports."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

MAKE = Path(__file__).parents[2] / "docs/make"


def load(name: str) -> ModuleType:
    """A script of docs/make, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_make_{name}", MAKE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_has_every_command_and_option():
    text = load("commands").text()
    pull = text[text.index("## medmaskrcnn pacs pull") : text.index("## medmaskrcnn pacs push")]
    assert "| `--timeout` S |" in pull
    assert "| `--surfaces`, `--no-surfaces` |" in text


def test_table_of_ablations(tmp_path, monkeypatch):
    ablations = load("ablations")
    monkeypatch.setattr(ablations, "RESULTS", tmp_path)
    assert "Not measured yet." in ablations.text()
    rows = [
        {"what": "FPN", "mask_ap": [0.4567, 0.41, 0.5], "mask_ap50": [0.7, None, None], "box_ap": [0.5, 0.4, 0.6]},
        {"what": "FPN without masks", "mask_ap": [0.0, 0.0, 0.0], "box_ap": [0.48, 0.4, 0.55]},
    ]
    (tmp_path / "ablations.json").write_text(json.dumps({"steps": 1500, "seed": 0, "rows": rows}), encoding="utf-8")
    text = ablations.text()
    assert "## 1,500 steps, seed 0" in text and "Not measured" not in text
    assert "| FPN | 0.457 (0.41 to 0.50) | 0.700 |  |  |  | 0.500 (0.40 to 0.60) |  |" in text
    assert "| FPN without masks |  |  |  |  |  | 0.480 (0.40 to 0.55) |  |" in text


def test_cards_say_what_the_files_say():
    from medmaskrcnn.hub.model_file import read_model_settings, shipped_models

    text = load("model_cards").text()
    for path in shipped_models().values():
        card = read_model_settings(path).card
        for said in (card.name, card.summary, card.licence, *card.scores.values(), *card.limits):
            assert said in text


def test_imports_are_those_of_the_code():
    imports = load("imports")
    layers, graph = imports.layers(), imports.graph()
    rooms = [room for layer in layers for room in layer]
    assert "medmaskrcnn.inference" in rooms and all(imports.folder(room).exists() for room in rooms)
    assert "medmaskrcnn.io" in imports.imports_of("medmaskrcnn.inference", rooms, graph)
    for height, layer in enumerate(layers):  # none imports what stands above it, or beside it
        above = [room for row in layers[: height + 1] for room in row]
        for room in layer:
            assert imports.imports_of(room, above, graph) == [], room
    assert all(f">{imports.short(room)}</text>" in imports.picture() for room in rooms)
    assert imports.cycles(imports.arrows(graph)) == []


def test_arrows_back_up_and_cycles_are_found():
    imports = load("imports")
    rows = [["medmaskrcnn.cli"], ["medmaskrcnn.io", "medmaskrcnn.models"], ["medmaskrcnn.errors"]]
    good = {("medmaskrcnn.cli", "medmaskrcnn.io"), ("medmaskrcnn.io", "medmaskrcnn.errors")}
    assert imports.arrows_back_up(good, rows) == [] and imports.cycles(good) == []
    back = {
        ("medmaskrcnn.errors", "medmaskrcnn.cli"),
        ("medmaskrcnn.io", "medmaskrcnn"),
        ("medmaskrcnn.io", "medmaskrcnn.models"),
    }
    assert imports.arrows_back_up(good | back, rows) == sorted(back)
    assert imports.cycles(good | back) == [{"medmaskrcnn.cli", "medmaskrcnn.io", "medmaskrcnn.errors"}]


@pytest.mark.parametrize("name", ["anchors", "levels", "roi", "coordinates"])
def test_figures_draw(name):
    figure = getattr(load("figures"), name)()
    assert figure.axes and any(axes.has_data() for axes in figure.axes)


def test_wrong_label_sets_are_told_as_the_page_says():
    wrong = load("wrong_labels")
    page = wrong.PAGE.read_text(encoding="utf-8")
    quoted = page.partition(wrong.BEGIN)[2].partition(wrong.END)[0].strip()
    assert quoted == wrong.text().strip() and quoted.count("\n") >= 8

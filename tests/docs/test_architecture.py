"""The page on architecture names files, functions and classes that exist, and the rooms that there are."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LIBRARY = CHECKOUT / "medmaskrcnn"
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = sorted(set(re.findall(r"`([\w/]+\.py):(\w+)`", PAGE)))
FILES = sorted(set(re.findall(r"`([\w/]+/(?:\w+\.py)?)`", PAGE)))


def test_the_walk_is_followed_from_command_to_files() -> None:
    rooms = [file.split("/")[0] for file, _ in re.findall(r"`([\w/]+\.py):(\w+)`", PAGE)]
    assert rooms[0] == "cli" and rooms[-1] == "export" and len(STEPS) > 25
    assert {"hub", "settings", "models", "io", "structures", "inference", "report"} <= set(rooms)


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_each_step_stands_where_the_page_says(file: str, name: str) -> None:
    body = ast.parse((LIBRARY / file).read_text(encoding="utf-8")).body
    assert name in {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("file", FILES)
def test_each_file_named_exists(file: str) -> None:
    assert (LIBRARY / file).exists()


def test_the_rooms_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers"]
    expected = [sorted(room.strip() for room in layer.split("|")) for layer in layers]
    library = [
        [room.removeprefix("medmaskrcnn.") for room in row if room.startswith("medmaskrcnn.")] for row in expected
    ]
    rows = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|", PAGE.split("direction of imports")[1].split("## ")[0], re.M)
    listed = [sorted(name.removesuffix(".py") for name in re.findall(r"`([\w.]+)`", row)) for row in rows]
    assert listed == [row for row in library if row]

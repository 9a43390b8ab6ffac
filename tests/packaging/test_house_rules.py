"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SOURCES = ["medmaskrcnn", "kernels", "datasets", "napari_plugin"]
MAX_FILES_WITH_TORCH_LOAD = 2  # foreign weights, training checkpoints


def calls_of(path: Path, owner: str, name: str) -> list[ast.Call]:
    """The calls ``owner.name(...)`` in a file."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == owner
    ]


def python_files() -> list[Path]:
    """Every Python file of the four packages."""
    return [path for folder in SOURCES for path in (CHECKOUT / folder).rglob("*.py")]


def says(call: ast.Call, keyword: str, value: bool) -> bool:
    """Whether a call passes ``keyword=value`` as a literal."""
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def test_torch_load_is_safe_and_rare():
    calls = {path: calls_of(path, "torch", "load") for path in python_files()}
    with_load = [path for path, found in calls.items() if found]
    assert len(with_load) <= MAX_FILES_WITH_TORCH_LOAD, with_load
    assert all(says(call, "weights_only", True) for found in calls.values() for call in found)


def test_nothing_is_unpickled():
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "from torch import load" not in text, path
        assert not [call for call in calls_of(path, "np", "load") if not says(call, "allow_pickle", False)], path


def test_every_room_has_its_place_in_the_layers():
    """import-linter says nothing of a module that no layer names."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    named = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    rooms = {
        f"medmaskrcnn.{path.stem}"
        for path in (CHECKOUT / "medmaskrcnn").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - named <= {"medmaskrcnn.__init__", "medmaskrcnn.__main__", "medmaskrcnn.weights"}


def test_ignore_patterns_cannot_drop_a_package():
    """hatchling leaves out what git ignores: a bare `datasets/` would empty the wheel without a word."""
    caches = {"__pycache__/", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".import_linter_cache/"}
    lines = (CHECKOUT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns
    assert [p for p in patterns if not p.startswith("/") and p not in caches and p != "*.egg-info/"] == []


def test_version_is_one():
    version = importlib.import_module("medmaskrcnn").__version__
    assert f"version: {version}\n" in (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    assert version in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")

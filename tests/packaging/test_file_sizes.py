"""Files stay small enough to be read, and imports have no cycles."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import grimp
import pytest

CHECKOUT = Path(__file__).parents[2]
FOLDERS = ["medmaskrcnn", "kernels", "datasets", "napari_plugin"]
PACKAGES = ["medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn"]
MOST_LINES, MEDIAN_LINES = 500, 250


def lines_of(folders: list[str]) -> dict[str, int]:
    """Lines of every Python file."""
    files = (path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))
    return {path.relative_to(CHECKOUT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}


def test_source_files_are_short():
    lines = {name: count for name, count in lines_of(FOLDERS).items() if count}
    assert len(lines) > 100
    assert median(lines.values()) < MEDIAN_LINES
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_test_files_are_short():
    assert {name: count for name, count in lines_of(["tests"]).items() if count > MOST_LINES} == {}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports when it is imported itself: not inside functions, not for type checkers alone."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        targets = graph.find_modules_directly_imported_by(module)
        details = [d for other in targets for d in graph.get_import_details(importer=module, imported=other)]
        deferred = lines_inside_functions(module) if details else set()
        found[module] = {d["imported"] for d in details if d["line_number"] not in deferred}
    return found


def lines_inside_functions(module: str) -> set[int]:
    """Numbers of the lines of a module that run when a function is called."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {line for f in functions for line in range(f.lineno, (f.end_lineno or f.lineno) + 1)}


def test_imports_have_no_cycles(imports):
    """A module that can be reached from what it imports is part of a cycle."""
    state: dict[str, int] = {}

    def walk(module: str, path: list[str]) -> None:
        state[module] = 1
        for other in sorted(imports[module]):
            assert state.get(other) != 1, f"cycle: {' -> '.join([*path[path.index(other) :], other])}"
            if other not in state:
                walk(other, [*path, other])
        state[module] = 2

    assert sum(map(len, imports.values())) > 200
    for module in sorted(imports):
        if module not in state:
            walk(module, [module])

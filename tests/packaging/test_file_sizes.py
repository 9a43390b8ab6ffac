"""Files stay small enough to be read, and imports have no cycles."""

from __future__ import annotations

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
    """What each module imports, be it when a function is called; not what it imports for type checkers alone."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


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

"""The page ``imports.md`` and its picture: which room imports which, asked of the code itself."""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

import grimp

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn")
TARGET = "imports.md"
PICTURE = "images/imports.svg"
_WIDTH, _ROW, _GAP = 960, 46, 12

HEAD = """# Imports

Made from the code. Higher layers import lower ones, never the other way round; rooms of one layer never import one
another. `lint-imports` keeps it so, with the contracts in `pyproject.toml`.

![Rooms by layer](images/imports.svg)

| room | imports | files | lines |
|---|---|---|---|
"""


def layers() -> list[list[str]]:
    """The layers of the import contract, highest first, without rooms that do not exist."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [c for c in contracts["contracts"] if c["type"] == "layers"]
    rows = [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]
    return [present for row in rows if (present := [room for room in row if folder(room).exists()])]


def folder(room: str) -> Path:
    """Where the code of a room lies."""
    roots = {
        "medmaskrcnn_kernels": "kernels",
        "medmaskrcnn_datasets": "datasets",
        "napari_medmaskrcnn": "napari_plugin",
    }
    path = CHECKOUT / roots.get(room.split(".")[0], "") / room.replace(".", "/")
    return path if path.exists() else path.with_suffix(".py")


def graph() -> grimp.ImportGraph:
    """All imports between the four packages but those for type checkers alone."""
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


def imports_of(room: str, rooms: list[str], found: grimp.ImportGraph) -> list[str]:
    """The other rooms that a room imports, in the given order."""
    return [other for other in rooms if other != room and _imports(room, other, found)]


def _imports(room: str, other: str, found: grimp.ImportGraph) -> bool:
    # as_packages fails for modules that are files
    inside = {room} | found.find_descendants(room)
    targets = {other} | found.find_descendants(other)
    return any(targets & found.find_modules_directly_imported_by(module) for module in inside)


def text() -> str:
    """The page."""
    rooms, found = [room for layer in layers() for room in layer], graph()
    rows = []
    for room in rooms:
        files = sorted(folder(room).rglob("*.py")) if folder(room).is_dir() else [folder(room)]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        others = ", ".join(short(other) for other in imports_of(room, rooms, found))
        rows.append(f"| `{short(room)}` | {others} | {len(files)} | {lines:,} |")
    return HEAD + "\n".join(rows) + "\n"


def picture() -> str:
    """The layers as SVG."""
    parts, rows = [], layers()
    for number, row in enumerate(rows):
        width = (_WIDTH - _GAP * (len(row) - 1)) / len(row)
        top = number * (_ROW + _GAP)
        for place, room in enumerate(row):
            left = place * (width + _GAP)
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{_ROW}" rx="4" '
                'fill="#eceff4" stroke="#5b6b7d"/>'
                f'<text x="{left + width / 2:.0f}" y="{top + _ROW / 2 + 5:.0f}" text-anchor="middle">'
                f"{escape(short(room))}</text>"
            )
    height = len(rows) * (_ROW + _GAP) - _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {_WIDTH + 4} {height + 4}" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="#1b1f24">{"".join(parts)}</svg>\n'
    )


def short(room: str) -> str:
    """A room's name within the library; other packages keep theirs."""
    return room.removeprefix("medmaskrcnn.")

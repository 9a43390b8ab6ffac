"""The page ``imports.md`` and its picture: which room imports which, asked of the code itself."""

from __future__ import annotations

import statistics
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

{structure}

An arrow is a room that imports another. It runs back up if the other stands in the same layer or a higher one, or if it
is the package's own face, `medmaskrcnn/__init__.py`. Boxes are rooms, loose modules and that face.

| room | imports | files | lines |
|---|---|---|---|
{rooms}
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


def box_of(module: str) -> str:
    """The room that a module stands in: a folder or module of the library, or one of the other packages."""
    return ".".join(module.split(".")[:2]) if module.startswith(f"{PACKAGES[0]}.") else module.split(".")[0]


def arrows(found: grimp.ImportGraph) -> set[tuple[str, str]]:
    """Every pair of rooms of which the first imports the second."""
    pairs = ((m, n) for m in found.modules for n in found.find_modules_directly_imported_by(m))
    return {(box_of(m), box_of(n)) for m, n in pairs if box_of(m) != box_of(n)}


def arrows_back_up(pairs: set[tuple[str, str]], rows: list[list[str]]) -> list[tuple[str, str]]:
    """Those that lead to the same layer or a higher one, or from the library to its own face."""
    height = {room: -number for number, row in enumerate(rows) for room in row}
    # Other packages may use the face; what no layer names (weights) has no code to import.
    height[PACKAGES[0]] = height["medmaskrcnn.cli"]
    return sorted((a, b) for a, b in pairs if a in height and b in height and height[b] >= height[a] and _inside(a, b))


def _inside(importer: str, imported: str) -> bool:
    return imported != PACKAGES[0] or importer.startswith(f"{PACKAGES[0]}.")


def cycles(pairs: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of rooms that import one another in a circle."""
    reached = {a: {b for start, b in pairs if start == a} for a, _ in pairs}
    for middle in list(reached):
        for seen in reached.values():
            if middle in seen:
                seen |= reached[middle]
    groups = [{b for b in reached[a] if a in reached.get(b, ())} for a in sorted(reached) if a in reached[a]]
    return [group for number, group in enumerate(groups) if group not in groups[:number]]


def structure(found: grimp.ImportGraph) -> dict[str, int]:
    """How large the house is, in numbers."""
    lines = sorted(_lines(path) for package in PACKAGES for path in folder(package).rglob("*.py"))
    boxes = {box_of(module) for module in found.modules}
    pairs = arrows(found)
    return {
        "folders": sum(folder(box).is_dir() for box in boxes - {PACKAGES[0]}),
        "boxes": len(boxes),
        "arrows": len(pairs),
        "arrows back up": len(arrows_back_up(pairs, layers())),
        "cycles": len(cycles(pairs)),
        "files": len(lines),
        "lines, median": int(statistics.median(lines)),
        "lines, longest": lines[-1],
    }


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def text() -> str:
    """The page."""
    rooms, found = [room for layer in layers() for room in layer], graph()
    numbers = structure(found)
    table = [numbers.keys(), ["---"] * len(numbers), (f"{number:,}" for number in numbers.values())]
    rows = []
    for room in rooms:
        files = sorted(folder(room).rglob("*.py")) if folder(room).is_dir() else [folder(room)]
        others = ", ".join(short(other) for other in imports_of(room, rooms, found))
        rows.append(f"| `{short(room)}` | {others} | {len(files)} | {sum(map(_lines, files)):,} |")
    return HEAD.format(structure="\n".join(f"| {' | '.join(row)} |" for row in table), rooms="\n".join(rows))


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

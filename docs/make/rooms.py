"""The pages ``reference/rooms/*.md``: every public name of every room, those that no other page of the reference has.

Nobody has to remember to list a new file: the pages are made from what lies in the packages.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import imports

REFERENCE = imports.CHECKOUT / "docs" / "reference"
FOLDER = "reference/rooms"
_SHOWN = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)

HEAD = """# All names

Every public function and class, by room, as the docstrings in the code say it. What most people need is on the pages
before this one.

| room | what | files |
|---|---|---|
"""


def pages() -> dict[str, str]:
    """The index, and a page for each room and package."""
    made, rows = {}, []
    for room in sorted(room for layer in imports.layers() for room in layer):
        blocks = [block for file in files_of(room) if (block := _block(dotted(file, room)))]
        if blocks:
            name = room.removeprefix("medmaskrcnn.")
            made[f"{FOLDER}/{name}.md"] = f"# {name}\n\n{''.join(blocks)}"
            rows.append(f"| [`{name}`]({name}.md) | {_said(room)} | {len(blocks)} |")
    return {f"{FOLDER}/README.md": HEAD + "\n".join(rows) + "\n"} | made


def files_of(room: str) -> list[Path]:
    """A room's files that define something."""
    path = imports.folder(room)
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [file for file in files if file.stem not in {"__init__", "__main__"}]


def dotted(file: Path, room: str) -> tuple[str, list[str]]:
    """A file's name for ``import``, and its public names."""
    path = imports.folder(room)
    module = file.relative_to(path.parents[room.count(".")]).with_suffix("").as_posix().replace("/", ".")
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names += [target.id for target in targets if isinstance(target, ast.Name)]
        names += [node.name] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
    return module, [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _block(defined: tuple[str, list[str]]) -> str:
    """A file for mkdocstrings: whole, or what no written page shows of it; empty if all is shown."""
    module, names = defined
    shown = shown_elsewhere()
    left = [name for name in names if f"{module}.{name}" not in shown]
    if module in shown or not left:
        return ""
    part = "" if len(left) == len(names) else f"    options:\n      members: [{', '.join(left)}]\n"
    return f"::: {module}\n{part}"


@cache
def shown_elsewhere() -> set[str]:
    """What a written page of the reference shows: modules, and single names out of others."""
    return {name for page in REFERENCE.glob("*.md") for name in _SHOWN.findall(page.read_text(encoding="utf-8"))}


def _said(room: str) -> str:
    """What a room's docstring begins with."""
    path: Path = imports.folder(room)
    text = (path if path.is_file() else path / "__init__.py").read_text(encoding="utf-8")
    return re.sub(r":\w+:`[.~]*([\w.]+)`|`+", r"\1", text.strip('"\n').splitlines()[0].strip('"'))

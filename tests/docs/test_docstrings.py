"""Every public name says what it is; where tensors go in or come out, it says their shape or the type that does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGES = {
    "medmaskrcnn": CHECKOUT / "medmaskrcnn",
    "medmaskrcnn_kernels": CHECKOUT / "kernels/medmaskrcnn_kernels",
    "medmaskrcnn_datasets": CHECKOUT / "datasets/medmaskrcnn_datasets",
    "napari_medmaskrcnn": CHECKOUT / "napari_plugin/napari_medmaskrcnn",
}
FILES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
TENSOR = re.compile(r"\b(Tensor|NDArray|ArrayLike|ndarray|FloatArray|BoolArray|IntArray|Dense)\b")
SHAPE = re.compile(r"``\(?[^`]*[,*][^`]*\)?``|[Oo]f any shape|[Ss]calar|[Oo]f the network's shape")
"""A shape in letters as the house writes it, ``(N, 2S)``, or that there is none to give."""
ELSEWHERE = re.compile(r"\b(As|See) :(meth|func|class):|\bArguments as :func:|inverse of :meth:")
"""The shapes are those of another docstring, which is named."""
COORDINATES = re.compile(
    r"box|point|cent(er|re)|corner|affine|position|anchor|window|polygon|contour|vox|_mm$|_lps$|_ras$"
)
FRAME = re.compile(
    r"\bvox(el|els)?\b|\bmm3?\b|\bRAS\b|\bLPS\b|\bpixels?\b|\bindex\b|\bindices\b|\bcells?\b|\bbins?\b"
    r"|world|coordinates?|deltas?|unit vector",
    re.IGNORECASE,
)
"""A unit or a frame: what a number that says where something lies is counted in."""


def public(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions and classes of a file, and the public methods of those classes, with their dotted names."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
                yield f"{node.name}.{part.name}", part


def named(path: Path) -> str:
    """A file's name in the report."""
    return path.relative_to(CHECKOUT).as_posix()


def is_overload(node: ast.AST) -> bool:
    """Whether a function only declares types, or sets what the getter of the same name documents."""
    marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
    return any(mark in {"overload", "typing.overload"} or mark.endswith(".setter") for mark in marks)


def test_every_public_name_has_a_docstring():
    missing = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            missing.append(named(path))
        missing += [
            f"{named(path)}: {n}" for n, o in public(path) if ast.get_docstring(o) is None and not is_overload(o)
        ]
    assert missing == []


def annotated(node: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    """Types by name: a function's arguments and what it returns, a class' fields."""
    if isinstance(node, ast.ClassDef):
        found = {ast.unparse(part.target): part.annotation for part in node.body if isinstance(part, ast.AnnAssign)}
    else:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        found = {a.arg: a.annotation for a in arguments} | {node.name: node.returns}
    return {name: ast.unparse(annotation) for name, annotation in found.items() if annotation is not None}


def tensors() -> Iterator[tuple[str, set[str], str]]:
    """Public functions and classes with a tensor or array: place and name, the tensors' names, the docstring."""
    for path in FILES:
        for name, node in public(path):
            handed = {n for n, kind in annotated(node).items() if TENSOR.search(kind) and not n.startswith("_")}
            if handed and not is_overload(node):
                yield f"{named(path)}: {name}", handed, ast.get_docstring(node) or ""


def test_tensors_have_a_shape():
    """In letters, wherever a tensor or array goes in, comes out or is kept."""
    found = list(tensors())
    assert len(found) > 200
    assert [place for place, _, said in found if not SHAPE.search(said) and not ELSEWHERE.search(said)] == []


def test_coordinates_have_a_unit_or_a_frame():
    """Boxes, points, affines: in voxels, mm, indices, of the scan or of the world."""
    found = [(place, said) for place, names, said in tensors() if any(map(COORDINATES.search, names))]
    assert len(found) > 60
    assert [place for place, said in found if not FRAME.search(said) and not ELSEWHERE.search(said)] == []


@pytest.mark.parametrize("said", ["Boxes of an image.", "The mask, a crop.", "Volume and affine of the scan"])
def test_words_alone_are_no_shape(said):
    assert not SHAPE.search(said) and not ELSEWHERE.search(said)

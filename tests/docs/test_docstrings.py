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
TENSOR = re.compile(r"\b(Tensor|NDArray|FloatArray|BoolArray|ndarray)\b")
SHAPE = re.compile(
    r"``\(?[^`]*[,*][^`]*\)?``"  # ``(N, 2S)``
    r"|[Aa]s :meth:|inverse of :meth:"
    r"|\b(shape|scalar|state dict|objects|box(es)?|mask|masks|map|maps"
    r"|image|images|pixels|plane|planes|slice|slices|affine|volume|array|voxels?|logits?|channels?|labels?|grid|points?|features?|regions?|weights?|picture|crop|values?)\b",
    re.IGNORECASE,
)
"""A shape as the house writes it, or one of the words that have one shape in the whole repository (STYLE, glossary)."""


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


def hands_tensors(node: ast.AST) -> bool:
    """Whether a tensor or array is among a function's arguments or what it returns."""
    if not isinstance(node, ast.FunctionDef):
        return False
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    annotations = [a.annotation for a in arguments] + [node.returns]
    return any(TENSOR.search(ast.unparse(annotation)) for annotation in annotations if annotation is not None)


def test_tensors_have_a_shape_in_words():
    silent = []
    for path in FILES:
        for name, node in public(path):
            if hands_tensors(node) and not SHAPE.search(ast.get_docstring(node) or ""):
                silent.append(f"{named(path)}: {name}")
    assert silent == []


@pytest.mark.parametrize("room", ["medmaskrcnn/models", "kernels/medmaskrcnn_kernels", "medmaskrcnn/structures"])
def test_the_network_the_operators_and_the_structures_write_shapes_out(room):
    """Here most functions with a tensor give a shape in letters, ``(N, 2S)``."""
    asked = [node for path in FILES if named(path).startswith(room) for _, node in public(path) if hands_tensors(node)]
    written = [node for node in asked if re.search(r"``\(?[^`]*[,*][^`]*\)?``", ast.get_docstring(node) or "")]
    assert len(asked) > 5
    assert len(written) / len(asked) > 0.6

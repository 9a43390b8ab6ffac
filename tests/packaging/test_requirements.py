"""The list of requirements says what the code imports: nothing undeclared, nothing declared in vain."""

from __future__ import annotations

import ast
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
OURS = {"medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn"}
SHARED_BY_TESTS = {
    path.stem
    for folder in ("tests/support", "tests/compatibility", "benchmarks")
    for path in (CHECKOUT / folder).glob("*.py")
}
CORE = ["medmaskrcnn", "kernels/medmaskrcnn_kernels", "datasets/medmaskrcnn_datasets"]
PLUGIN = ["napari_plugin/napari_medmaskrcnn"]
# pydicom finds these by itself: they are decoders.
NOT_IMPORTED_BY_NAME = {"pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm"}
COMES_WITH_TORCH = {"triton"}
EXTRAS_OF_CORE = ("pandas", "cluster", "pacs", "tune", "wandb", "openvino", "onnx", "prune", "bundle")
COMES_WITH_NAPARI = {"qtpy", "magicgui", "npe2", "superqt", "vispy", "app-model", "psygnal", "platformdirs", "psutil"}


@cache
def declared(extra: str = "") -> frozenset[str]:
    """Names of the requirements in pyproject.toml, of the core or of an extra."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return frozenset(canonicalize_name(Requirement(line).name) for line in lines)


def of_extras() -> frozenset[str]:
    """What the extras bring that the core has use for."""
    return frozenset().union(*map(declared, EXTRAS_OF_CORE))


def imported(folders: list[str]) -> dict[frozenset[str], set[str]]:
    """What the code in these folders imports: the distributions that provide a module, with the files that import it.

    A module may be provided by several of the installed distributions.
    """
    owners = packages_distributions()
    found: dict[frozenset[str], set[str]] = {}
    for path in (path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")):
        for module in modules_of(path) - set(sys.stdlib_module_names) - OURS - SHARED_BY_TESTS:
            names = frozenset(map(canonicalize_name, owners.get(module, [module])))
            found.setdefault(names, set()).add(path.relative_to(CHECKOUT).as_posix())
    return found


def modules_of(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("folders", "allowed"),
    [
        pytest.param(CORE, declared() | of_extras() | COMES_WITH_TORCH, id="core"),
        pytest.param(PLUGIN, declared() | declared("napari") | COMES_WITH_NAPARI, id="plugin"),
        pytest.param(
            ["tests"],
            declared() | of_extras() | declared("napari") | declared("test") | declared("test-all") | COMES_WITH_NAPARI,
            id="tests",
        ),
    ],
)
def test_everything_imported_is_declared(folders, allowed):
    found = imported(folders)
    assert frozenset({"numpy"}) in found
    assert {names: files for names, files in found.items() if not names & allowed} == {}


def test_everything_declared_is_imported():
    unused = declared() - NOT_IMPORTED_BY_NAME - frozenset().union(*imported(CORE))
    assert unused == set()


def test_the_decoders_that_are_declared_serve_pydicom():
    from pydicom.pixels.decoders import (
        JPEG2000LosslessDecoder,
        JPEGBaseline8BitDecoder,
        JPEGLosslessSV1Decoder,
        JPEGLSLosslessDecoder,
        RLELosslessDecoder,
    )

    plugins = {
        JPEGBaseline8BitDecoder: "gdcm",
        JPEGLosslessSV1Decoder: "gdcm",
        JPEGLSLosslessDecoder: "pyjpegls",
        JPEG2000LosslessDecoder: "pylibjpeg",
        RLELosslessDecoder: "pylibjpeg",
    }
    for decoder, plugin in plugins.items():
        assert decoder.is_available, decoder.UID.name
        assert plugin in decoder.available_plugins, (decoder.UID.name, decoder.available_plugins)

"""The examples in docstrings run and show what they say, in every module of the four packages."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ["medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn"]


def module_names(package: str) -> list[str]:
    """A package and all modules below it, found without importing more than packages."""
    path = importlib.import_module(package).__path__
    return [package, *(info.name for info in pkgutil.walk_packages(path, prefix=f"{package}."))]


@pytest.mark.parametrize("name", [name for package in PACKAGES for name in module_names(package)])
def test_module_imports_and_its_examples_hold(name, monkeypatch, tmp_path):
    if name.endswith(".__main__"):
        return
    monkeypatch.chdir(tmp_path)  # an example may write
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert failed == 0

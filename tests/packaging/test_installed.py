"""`make test` tests what a user installs: the wheel in site-packages, not the checkout."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
installed_run = pytest.mark.skipif(
    not os.environ.get("MEDMASKRCNN_TEST_INSTALLED"),
    reason="only under `make test`, which sets MEDMASKRCNN_TEST_INSTALLED",
)


@installed_run
@pytest.mark.parametrize("name", ["medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn"])
def test_package_comes_from_site_packages(name):
    where = Path(importlib.import_module(name).__file__).resolve()
    assert where.is_relative_to(Path(sysconfig.get_path("purelib")).resolve()), where


@installed_run
def test_suite_runs_outside_the_checkout():
    assert not Path.cwd().is_relative_to(CHECKOUT)
    assert not {CHECKOUT, CHECKOUT / "kernels", CHECKOUT / "datasets"} & {Path(entry).resolve() for entry in sys.path}


def test_version_of_the_package_is_the_version_of_the_distribution():
    package = importlib.import_module("medmaskrcnn")
    assert package.__version__ == importlib.metadata.version("medmaskrcnn")


def test_nothing_of_ours_is_called_datasets_or_kernels():
    files = importlib.metadata.files("medmaskrcnn") or []
    assert not {"datasets", "kernels", "tests"} & {path.parts[0] for path in files}

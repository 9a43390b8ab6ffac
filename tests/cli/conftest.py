"""A tiny model with random weights, small scans, and a way to run the command line inside the test's process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_models
from tiny_models import tiny_settings
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app

SHAPE = (4, 40, 48)


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run() -> Callable[..., Ran]:
    """``run("info", path)``: runs a command; anything but an orderly end fails the test."""

    def run_command(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError("the command ended with an exception") from result.exception
        assert "Traceback" not in result.stdout + result.stderr
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run_command


def _save_tiny(path: Path, **card: object) -> Path:
    settings = tiny_settings(
        rpn={"pre_nms_top_n": 50, "post_nms_top_n": 20},
        detection={"mask_threshold": 0.0},
        card={"summary": "Random weights.", "licence": "", **card},
    )
    return tiny_models.save_tiny(settings, path)


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """``save_tiny(path, domain=...)``: a model file with random but always the same weights, and a card."""
    return _save_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for MR."""
    return _save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors", modality="MR", licence="CC0-1.0")


def _write_scan(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    if array is None:
        rng = np.random.default_rng(0)
        array = rng.normal(100, 10, SHAPE).astype(np.int16)
        array[1:3, 10:25, 8:24] += 200
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T, np.diag([1.5, 1.5, 4, 1]) if affine is None else affine), path)
    return path


@pytest.fixture(scope="session")
def write_scan() -> Callable[..., Path]:
    """``write_scan(path, array, affine)``: a NIfTI; without array a bright block on noise, (4, 40, 48) voxels."""
    return _write_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A NIfTI that every test may segment."""
    return _write_scan(tmp_path / "in" / "scan.nii.gz")


@pytest.fixture(scope="session")
def ct_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom as a folder of DICOM."""
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    folder = tmp_path_factory.mktemp("study") / "ct"
    settings = PhantomSettings(seed=3, shape=(6, 48, 48), spacing_mm=(40.0, 8.0, 8.0), tumours=0)
    write_dicom_series(make_phantom(settings), folder)
    return folder

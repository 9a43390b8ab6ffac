"""What the documentation's commands and the examples work on: a small study, and a model that takes no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.hub import model_file
from medmaskrcnn.hub.model_file import read_model, resolve_model, save_model, shipped_models
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A CT series of a small phantom."""
    folder = tmp_path_factory.mktemp("user") / "study"
    write_dicom_series(make_phantom(PhantomSettings(seed=1, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0))), folder)
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """Two labelled data sets: ``Task04_Hippocampus`` in the Decathlon's layout, ``patients`` as CT with RTSTRUCT."""
    folder = tmp_path_factory.mktemp("labelled")
    _write_decathlon(folder / "Task04_Hippocampus")
    for seed in (2, 3):
        _write_patient(folder / "patients" / f"P{seed}", seed)
    return folder


def _write_decathlon(folder: Path) -> None:
    """Six scans of 16 x 32 x 32 voxels with two bright boxes each."""
    draw, grid, names = np.random.default_rng(0), Grid((16, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])), []
    for number in range(6):
        image, labels = draw.normal(100, 10, (16, 32, 32)), np.zeros((16, 32, 32), np.uint8)
        for value, (low, high) in enumerate((((1, 1, 1), (9, 12, 14)), ((5, 17, 15), (13, 27, 27))), start=1):
            shift = draw.integers(0, 3, 3)
            window = tuple(slice(a + s, b + s) for a, b, s in zip(low, high, shift.tolist(), strict=True))
            image[window] += 80 * value
            labels[window] = value
        names.append(f"hippocampus_{number:03d}.nii.gz")
        for part, array in (("imagesTr", image.astype(np.int16)), ("labelsTr", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            write_nifti(array, grid, folder / part / names[-1])
    described = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def _write_patient(folder: Path, seed: int) -> None:
    """A coarse phantom CT as DICOM, and its organs as an RTSTRUCT."""
    phantom = make_phantom(PhantomSettings(seed=seed, shape=(12, 48, 48), spacing_mm=(16.0, 8.0, 8.0), tumours=0))
    write_dicom_series(phantom, folder / "ct")
    truth = write_nifti(phantom.labels, phantom.volume.grid, folder.parent.parent / f"truth-{seed}.nii.gz")
    names = ",".join(f"{i.value}={i.class_name}" for i in phantom.instances if i.class_name in ("liver", "spleen"))
    words = ["convert", truth, folder / "rs.dcm", "--to", "rtstruct", "--image", folder / "ct", "--names", names]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory) -> Path:
    """``phantom-ct`` for voxels of 8 mm."""
    network, settings = read_model(resolve_model("phantom-ct"))
    preprocess = settings.preprocess.model_copy(update={"spacing_mm": (8.0, 8.0, 8.0)})
    path = tmp_path_factory.mktemp("model") / "phantom-ct.safetensors"
    save_model(network, settings.model_copy(update={"preprocess": preprocess}), path)
    return path


@pytest.fixture
def quick_phantom_ct(quick_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for ``phantom-ct`` by its name is given the quick one."""
    shipped = shipped_models() | {"phantom-ct": quick_model}
    monkeypatch.setattr(model_file, "shipped_models", lambda: shipped)

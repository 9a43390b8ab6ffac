"""What the documentation's commands and the examples work on: a small study, and a model that takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmaskrcnn.models import model_file
from medmaskrcnn.models.model_file import read_model, resolve_model, save_model, shipped_models


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A CT series of a small phantom."""
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    folder = tmp_path_factory.mktemp("user") / "study"
    write_dicom_series(make_phantom(PhantomSettings(seed=1, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0))), folder)
    return folder


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

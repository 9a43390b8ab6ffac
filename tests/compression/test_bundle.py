"""A MONAI Bundle that MONAI itself runs, in a process of its own, and what it writes is what ``segment`` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.cli.main import app
from medmaskrcnn.hub.model_file import save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    InferenceSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
)

UPRIGHT = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
# The mandatory keys of MONAI's specification; its own schema lies on the net.
TENSOR = {
    "type": "object",
    "required": [
        "type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def",
    ],
}  # fmt: skip
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
SCHEMA = {
    "type": "object",
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors",
        "copyright", "network_data_format",
    ],
    "properties": {
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    settings = ModelFileSettings(
        card=ModelCard(name="tiny", summary="Finds livers.", licence="CC0-1.0", limits=("Random weights.",)),
        model=ModelSettings(
            class_names=("liver",),
            backbone=BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
            anchors=AnchorSettings(sizes=tuple((s, s) for s in (8, 16, 32, 64, 128))),
            roi=RoISettings(box_size=4, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1),
            detection=DetectionSettings(score_thresh=0.0, detections_per_img=5),
        ),
        preprocess=PreprocessSettings(percentiles=(1, 99)),
        inference=InferenceSettings(score=0.0),
    )
    torch.manual_seed(0)
    network = build_model(settings.model)
    torch.nn.init.normal_(network.rpn_head.conv.weight, std=0.2)
    save_model(network, settings, folder / "tiny.safetensors")
    ran = CliRunner().invoke(
        app, ["export", str(folder / "tiny.safetensors"), "--to", "monai-bundle", "-o", str(folder / "tiny")]
    )
    assert ran.exit_code == 0, ran.output
    assert "models/model.safetensors" in ran.output
    return folder / "tiny"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).normal(100, 30, (3, 40, 50)).astype(np.float32)
    values[:, 10:30, 15:40] += 200
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, UPRIGHT), path)
    return path


@pytest.mark.slow
@pytest.mark.needs(extra="bundle")
def test_monai_runs_it_and_finds_what_segment_finds(bundle: Path, scan: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json",
        "--meta_file", "configs/metadata.json", "--input", str(scan), "--output_dir", str(tmp_path / "result"),
        "--formats", "['nifti','csv']", "--device", "cpu",
    ]  # fmt: skip
    paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    done = subprocess.run(
        command, cwd=bundle, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"instances.npz", "instances.csv", "labels.nii.gz", "run.json"}
    found = medmaskrcnn.load_case(tmp_path / "result" / "instances.npz")
    own = medmaskrcnn.segment(scan, bundle.with_name("tiny.safetensors"), device="cpu")
    assert len(own.candidates) > 1
    assert np.array_equal(found.candidates.boxes, own.candidates.boxes)
    assert np.array_equal(found.candidates.scores, own.candidates.scores)
    assert found.candidates.masks == own.candidates.masks


def test_metadata_is_what_monai_asks_for(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_if_from_the_net(url: str, filepath: str, **_: object) -> None:
        assert url.startswith("https://github.com/Project-MONAI/")
        Path(filepath).write_text(json.dumps(SCHEMA))

    monkeypatch.setattr("monai.bundle.scripts.download_url", as_if_from_the_net)
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["required_packages_version"]["medmaskrcnn"] == medmaskrcnn.__version__
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == ["32*n", "32*m"]
    del metadata["task"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, SCHEMA)


def test_the_network_can_be_had_from_the_configuration(bundle: Path) -> None:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle)
    parser["precision"] = "fp32"
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        assert len(network.pyramid(torch.zeros(1, 1, 64, 64))) == 5


def test_it_says_what_it_is_and_holds_no_pickle(bundle: Path) -> None:
    files = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    assert files == [
        "configs/inference.json", "configs/metadata.json", "docs/README.md", "docs/license.txt",
        "models/model.safetensors",
    ]  # fmt: skip
    readme = (bundle / "docs" / "README.md").read_text()
    assert "python -m monai.bundle run" in readme and "Random weights." in readme and "Finds livers." in readme
    assert (bundle / "docs" / "license.txt").read_text() == "CC0-1.0\n"


def test_a_folder_that_holds_something_is_refused(bundle: Path) -> None:
    model = str(bundle.with_name("tiny.safetensors"))
    ran = CliRunner().invoke(app, ["export", model, "--to", "monai-bundle", "-o", str(bundle)])
    assert ran.exit_code == 1 and "is there already" in ran.output
    assert CliRunner().invoke(app, ["export", model, "--to", "monai-bundle"]).exit_code == 2

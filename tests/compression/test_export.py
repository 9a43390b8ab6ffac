"""Other forms of a model: they compute what torch computes, and what does not is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_models import tiny_settings
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.cli.main import app
from medmaskrcnn.compression import export
from medmaskrcnn.compression.dense import default_shape, images_of, read_dense_part
from medmaskrcnn.compression.export import TOLERANCE, export_dense
from medmaskrcnn.errors import MedMaskRCNNError, ModelFileError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import model_sha256, read_model, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.inference_backend import quantised_folder
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

ALIKE = 0.9
"""Cosine between a quantised map and its own: another map or another model's is near 0. How exact 8 bits are a network
of eight random channels cannot tell; that is measured as AP of trained models."""
UPRIGHT = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
"""D up, H to the back, W to the left: nothing is turned."""


def settings_of(dims: int) -> ModelFileSettings:
    return tiny_settings(
        dims,
        model={"class_names": ("liver",), "context_slices": 1 if dims == 2 else 0},
        roi={"box_size": 4, "mask_size": 4},
        inference={"tile": (10, 40, 64)},
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder, paths = tmp_path_factory.mktemp("models"), {}
    for dims in (2, 3):
        settings = settings_of(dims)
        torch.manual_seed(0)
        network = build_model(settings.model)
        torch.nn.init.normal_(network.rpn_head.conv.weight, std=0.2)  # so that its output is not all but zero
        paths[dims] = folder / f"tiny-{dims}d.safetensors"
        save_model(network, settings, paths[dims])
    return paths


@pytest.mark.parametrize("dims", [2, 3])
def test_archive_computes_the_same(models: dict[int, Path], tmp_path: Path, dims: int) -> None:
    shape = (64, 96) if dims == 2 else (8, 32, 64)
    file = tmp_path / "new" / "dense.pt2"
    assert export_dense(models[dims], "torch-export", file, shape=shape) <= TOLERANCE
    part, settings = read_dense_part(models[dims])
    images = torch.randn(1, settings.model.input_channels, *shape)
    with torch.no_grad():
        expected = part(images)
    for a, b in zip(expected, torch.export.load(str(file)).module()(images), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.needs(extra="onnx")
@pytest.mark.slow
def test_onnx_file_is_valid_and_computes_the_same(models: dict[int, Path], tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    file = tmp_path / "dense.onnx"
    assert export_dense(models[2], "onnx", file, shape=(64, 96)) <= TOLERANCE
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names[:3] == ["p2", "p3", "p4"] and names[5] == "objectness2" and names[14] == "deltas6"
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = read_dense_part(models[2])[0](images)
    for a, b in zip(expected, session.run(None, {"images": images.numpy()}), strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), atol=1e-4, rtol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["dense.onnx"]


def test_a_form_that_differs_is_not_kept(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export._write_archive
    monkeypatch.setattr(export, "_write_archive", lambda *a: [m * 1.01 for m in write(*a)])
    with pytest.raises(MedMaskRCNNError, match="differs from torch"):
        export_dense(models[2], "torch-export", tmp_path / "dense.pt2", shape=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_shapes(models: dict[int, Path], tmp_path: Path) -> None:
    assert default_shape(settings_of(2)) == (1, 3, 512, 512)
    assert default_shape(settings_of(3)) == (1, 1, 16, 64, 64)
    with pytest.raises(ModelFileError, match=r"2 axes, multiples of \(32, 32\); got \(64, 70\)"):
        export_dense(models[2], "onnx", tmp_path / "dense.onnx", shape=(64, 70))


def scan(depth: int, seed: int = 0) -> Volume:
    random = np.random.default_rng(seed)
    values = random.normal(100, 30, (1, depth, 40, 50)).astype(np.float32)
    return Volume(values, Grid((depth, 40, 50), UPRIGHT))


def test_images_are_those_that_the_network_is_given(models: dict[int, Path]) -> None:
    flat = list(images_of([scan(7), scan(2)], settings_of(2), per_volume=3))
    assert [tuple(image.shape) for image in flat] == [(1, 3, 64, 64)] * 5
    assert not torch.equal(flat[0], flat[1])
    seen: list[torch.Tensor] = []
    loaded = medmaskrcnn.load_model(models[3], device="cpu")
    watched = LoadedModel(
        loaded.network,
        loaded.settings,
        "",
        loaded.device,
        lambda step, made: seen.append(made) if step == "input" else None,
    )
    medmaskrcnn.segment(scan(20), watched)
    tiles = list(images_of([scan(20)], settings_of(3), per_volume=99))
    assert len(tiles) == len(seen) > 2
    for a, b in zip(tiles, seen, strict=True):
        assert torch.equal(a, b)


@pytest.mark.needs(extra="openvino")
def test_eight_bits_beside_the_model_are_what_segment_runs(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "own.safetensors"
    model.write_bytes(models[2].read_bytes())
    nib.save(nib.Nifti1Image(scan(4).array[0], UPRIGHT), tmp_path / "a.nii.gz")
    manifest = {
        "version": 1, "name": "own", "modality": "CT", "licence": "CC0-1.0", "class_names": ["liver"],
        "cases": [{"id": "a", "patient": "a", "image": "a.nii.gz", "label": None, "split": "train", "fold": None,
                   "case_labels": {}, "instances": []}],
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    ran = CliRunner().invoke(
        app, ["export", str(model), "--to", "openvino-int8", "--data", str(tmp_path / "manifest.json")]
    )
    assert ran.exit_code == 0, ran.output
    loaded = medmaskrcnn.load_model(model, device="cpu", engine="openvino", precision="int8")
    result = medmaskrcnn.segment(scan(4), loaded)
    assert result.record.precision == result.run["precision"] == "int8"
    (images,) = images_of([scan(4, seed=1)], settings_of(2), per_volume=1)
    part, _ = read_dense_part(model)
    with torch.no_grad():
        expected = part(images)
    programs, exact = loaded.network.compiled, read_model(model)[0].eval()
    regions = torch.randn(30, 8, 4, 4).relu()
    with torch.no_grad():
        of_heads = (*exact.box_head(regions), exact.mask_head(regions))
    got = (*programs.dense(images)[:5], *programs.box_head(regions), programs.mask_head(regions))
    for number, (a, b) in enumerate(zip((*expected[:5], *of_heads), got, strict=True)):
        assert not torch.equal(a, b), f"output {number} is not quantised"
        likeness = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        assert likeness > ALIKE, number
    folder = quantised_folder(model, model_sha256(model))
    (folder / "mask_head.bin").unlink()
    with pytest.raises(
        ModelFileError, match=r"no 8-bit form beside it: the folder own-\w{12}-int8 lacks mask_head\.bin"
    ):
        medmaskrcnn.load_model(model, device="cpu", engine="openvino", precision="int8")


def test_command(models: dict[int, Path], tmp_path: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        ran = CliRunner().invoke(app, ["export", *map(str, arguments)])
        return ran.exit_code, ran.stdout + ran.stderr

    file = tmp_path / "dense.pt2"
    code, said = run(models[2], "--to", "torch-export", "-o", file, "--shape", "64,64")
    assert code == 0 and file.is_file() and "differs from torch by at most" in said
    assert run(models[2], "--to", "onnx")[0] == 2
    assert run(models[2], "--to", "openvino-int8")[0] == 2
    assert run(models[2], "--to", "onnx", "-o", file, "--shape", "64,wide")[0] == 2
    code, said = run(models[2], "--to", "onnx", "-o", tmp_path / "d.onnx", "--shape", "64,70")
    assert code == 1 and "multiples of (32, 32)" in said

"""``medmaskrcnn optimize`` on a tiny model: every kind of variant runs, and the file that is written says how."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.cli.main import app
from medmaskrcnn.compression.search import run
from medmaskrcnn.compression.search.bench import Bench
from medmaskrcnn.compression.search.chosen import write_chosen
from medmaskrcnn.compression.search.forms import Forms
from medmaskrcnn.compression.search.run import optimize
from medmaskrcnn.compression.search.variant import ORIGINAL, Variant, VariantResult
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.hub.model_file import model_sha256, read_model_settings, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.inference_backend import quantised_folder
from medmaskrcnn.models.runtime.choice import resolve_runtime
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
    RPNSettings,
)

SIDE = 96
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices with bright discs, of which some are for training and some to validate on."""
    folder = tmp_path_factory.mktemp("discs")
    cases = []
    for number in range(4):
        random = np.random.default_rng(number)
        image, label = random.normal(0, 20, (SIDE, SIDE, 1)), np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
        for value, (y, x) in enumerate(random.uniform(16, SIDE - 16, (3, 2)), start=1):
            rows, columns = np.mgrid[:SIDE, :SIDE]
            label[(rows - y) ** 2 + (columns - x) ** 2 < 100] = value
        image[label > 0] += 300
        for name, values in (("image", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), folder / f"{name}{number}.nii.gz")
        values = [int(v) for v in np.unique(label) if v]
        cases.append({
            "id": f"c{number}", "patient": f"p{number}", "image": f"image{number}.nii.gz",
            "label": f"label{number}.nii.gz", "split": "train" if number < 2 else "val",
            "instances": [{"value": value, "class": "disc"} for value in values],
        })  # fmt: skip
    document = {"version": 1, "name": "discs", "class_names": ["disc"], "cases": cases}
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder / "manifest.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ModelFileSettings(
        card=ModelCard(name="tiny", scores={"Dice": "0.9"}, made_by="a test"),
        model=ModelSettings(
            class_names=("disc",),
            backbone=BackboneSettings(name="light", light_channels=(32, 32, 32, 32), fpn_channels=32),
            anchors=AnchorSettings(sizes=((10, 10), (20, 20), (32, 32), (64, 64), (128, 128))),
            rpn=RPNSettings(pre_nms_top_n=100, post_nms_top_n=60),
            roi=RoISettings(box_hidden=64, mask_channels=32, mask_convs=1),
            detection=DetectionSettings(score_thresh=0.0, detections_per_img=10),
        ),
        preprocess=PreprocessSettings(percentiles=(1, 99)),
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(build_model(settings.model), settings, path)
    return path


@pytest.fixture(scope="module")
def manifest(data: Path) -> Manifest:
    return read_manifest(data)


def command(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["optimize", *map(str, arguments)])
    return ran.exit_code, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.needs(extra="prune")
def test_one_command_tries_measures_and_writes(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "runtimes", lambda target: ([ORIGINAL, Variant("torch", "bf16")], ["OpenVINO: not now"]))
    out = tmp_path / "fast.safetensors"
    asked = [model, "--for", "cpu", "--data", data, "-o", out, "--fine-tune", 2, "--prune", "0.5", "--max-ap-loss", 1]
    code, said = command(*asked, "--workers", 0)
    assert code == 0, said
    assert "not tried: OpenVINO: not now" in said and f"wrote {out}" in said
    folder = tmp_path / "fast-search"
    rows = (folder / "variants.csv").read_text().splitlines()[1:]
    table = [row.split(",") for row in rows]
    assert ["0.0", "torch", "fp32", ""] in [cells[-8:-4] for cells in table]
    pruned_rows = [cells for cells in table if cells[-8] == "0.5"]
    assert {cells[-6] for cells in pruned_rows} == {"fp32", "bf16"}, rows
    # Where fewer proposals were faster, the fastest runtime is tried with its own number too.
    assert len(pruned_rows) == (3 if any(cells[-5] for cells in pruned_rows) else 2), rows
    assert all(float(cells[-3]) > 0 and not cells[-1] for cells in table)
    assert (folder / "pareto.png").stat().st_size > 1000
    pruned = read_model_settings(folder / "pruned-0.5.safetensors").model
    assert pruned.backbone.light_channels == (16, 16, 16, 16) and pruned.roi.box_hidden == 32
    assert medmaskrcnn.load_model(out).settings.inference.engine == "torch"

    monkeypatch.setattr(Bench, "_measure", None)  # would be called for anything that is not known
    out.unlink()
    code, said = command(*asked)
    assert code == 0 and out.is_file(), said
    code, said = command(*asked, "--images", 3)
    assert code == 1 and "another search" in said


@pytest.mark.needs(extra="openvino")
def test_the_file_that_is_written_says_how_it_is_to_run(model: Path, manifest: Manifest, tmp_path: Path) -> None:
    forms = Forms(model, manifest, tmp_path, steps=0, images=2)
    variant = Variant("openvino", "int8", 40)
    out = tmp_path / "own.safetensors"
    write_chosen(
        VariantResult(variant, 0.1, 4.0, 0.79), VariantResult(ORIGINAL, 0.4, 1.0, 0.8), forms, out, "discs, val"
    )
    assert quantised_folder(out, model_sha256(out)).is_dir()
    loaded = medmaskrcnn.load_model(out, device="cpu")
    assert (loaded.precision, loaded.engine[:8]) == ("int8", "openvino")
    assert loaded.settings.inference.post_nms_top_n_test == 40
    assert "AP 0.790 (0.800 before) on discs, val; 4.0 times" in loaded.settings.card.scores["AP and speed"]
    assert loaded.settings.card.scores["Dice (before optimize)"] == "0.9"
    assert loaded.settings.card.made_by.startswith("a test; then medmaskrcnn")
    other = medmaskrcnn.load_model(out, device="cpu", engine="torch", precision="fp32")
    assert (other.precision, other.engine[:5]) == ("fp32", "torch")


def test_what_a_model_asks_for_gives_way_to_what_is_asked() -> None:
    eight = InferenceSettings(precision="int8", engine="openvino")
    assert resolve_runtime(eight, "auto", "auto", CPU) == ("int8", "openvino")
    assert resolve_runtime(eight, "fp32", "auto", CPU) == ("fp32", "openvino")
    assert resolve_runtime(eight, "auto", "torch", CPU) == ("auto", "torch")
    assert resolve_runtime(eight, "auto", "auto", torch.device("cuda")) == ("auto", "torch")
    half = InferenceSettings(precision="bf16")
    assert resolve_runtime(half, "auto", "auto", torch.device("cuda")) == ("bf16", "torch")
    assert resolve_runtime(half, "auto", "openvino", CPU) == ("bf16", "openvino")
    assert resolve_runtime(InferenceSettings(), "auto", "auto", CPU) == ("auto", "torch")
    with pytest.raises(ValueError, match="int8 needs inference"):
        InferenceSettings(precision="int8")


def test_a_variant_that_fails_is_told_and_the_original_is_not_excused(
    model: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Bench, variant: Variant) -> VariantResult:
        if variant.precision == "bf16":
            raise RuntimeError("no such instruction")
        return VariantResult(variant, 0.1, 1.0, 0.5)

    monkeypatch.setattr(run, "runtimes", lambda target: ([ORIGINAL, Variant("torch", "bf16")], []))
    monkeypatch.setattr(Bench, "_measure", fails)
    found = optimize(model, manifest, tmp_path / "a.safetensors", fine_tune=0)
    assert found.chosen.variant in (ORIGINAL, Variant("torch", "fp32", 30))
    assert found.outcomes[1].error == "RuntimeError: no such instruction"
    assert found.notes == ("pruning: left out as you wish",)
    monkeypatch.setattr(run, "runtimes", lambda target: ([Variant("torch", "fp32")], []))
    monkeypatch.setattr(Bench, "_measure", lambda self, variant: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimize(model, manifest, tmp_path / "b.safetensors", fine_tune=0)


def test_wrong_use(model: Path, data: Path, manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    code, said = command(model, "--for", "cpu", "--data", data, "-o", out, "--split", "nowhere")
    assert code == 2 and "no case in split 'nowhere'" in said
    code, said = command(model, "--for", "cpu", "--data", data, "-o", out, "--prune", "half")
    assert code == 2 and "numbers with commas" in said
    code, said = command(model, "--for", "cpu", "--data", tmp_path / "none.json", "-o", out)
    assert code == 1 and "cannot read manifest" in said
    with pytest.raises(ValueError, match="between 0 and 1"):
        optimize(model, manifest, out, shares=(1.5,))
    with pytest.raises(ValueError, match="cpu or gpu"):
        optimize(model, manifest, out, target="tpu")
    assert not list(tmp_path.glob("a-search/*"))

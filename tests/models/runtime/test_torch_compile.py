"""The dense part by torch.compile: what it computes, how often it compiles, where it is chosen, how it fails."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny, tiny_settings
from torch._dynamo.utils import counters

import medmaskrcnn
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.runtime.choice import resolve_runtime
from medmaskrcnn.settings import InferenceSettings, ModelFileSettings

# What docs/fast.md promises of maps, logits and deltas, as a share of the largest value.
ERROR = {"fp32": 1e-4, "bf16": 0.03}
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def settings_of(dims: int) -> ModelFileSettings:
    return tiny_settings(
        dims,
        sizes=(6, 10, 16, 24, 32),
        backbone={"light_channels": (16, 16, 16, 16), "fpn_channels": 16, "norm": "frozen_batch"},
        rpn={"pre_nms_top_n": 60, "post_nms_top_n": 30},
        roi={"box_size": 4, "mask_size": 4, "box_hidden": 32, "mask_channels": 16, "canonical_size": 24.0},
        detection={"detections_per_img": 9, "mask_threshold": 0.0},
    )


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile follows the module and runs what it saw by torch: all but TorchInductor, which takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_computes_what_torch_does_and_compiles_once_for_all_sizes(
    precision: str, tmp_path: Path, traced_only: None
) -> None:
    file = save_tiny(settings_of(2), tmp_path / "tiny.safetensors")
    fast = medmaskrcnn.load_model(file, device="cpu", precision=precision, engine="torch-compile")
    exact = medmaskrcnn.load_model(file, device="cpu", precision="fp32")
    assert fast.engine == f"torch-compile {torch.__version__}" and fast.precision == precision
    graphs = counters["stats"]["unique_graphs"]
    for size in ((192, 256), (256, 128), (160, 384)):
        check_same(fast, exact, torch.randn(2, 1, *size), ERROR[precision])
    assert counters["stats"]["unique_graphs"] == graphs + 1


@pytest.mark.slow
def test_it_computes_what_torch_does_in_3d(tmp_path: Path, traced_only: None) -> None:
    file = save_tiny(settings_of(3), tmp_path / "tiny.safetensors")
    fast = medmaskrcnn.load_model(file, device="cpu", precision="fp32", engine="torch-compile")
    exact = medmaskrcnn.load_model(file, device="cpu", precision="fp32")
    check_same(fast, exact, torch.randn(2, 1, 16, 64, 96), ERROR["fp32"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA or ROCm)")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_torchinductor_computes_what_torch_does(precision: str, tmp_path: Path) -> None:
    file = save_tiny(settings_of(2), tmp_path / "tiny.safetensors")
    fast = medmaskrcnn.load_model(file, device="cuda", precision=precision, engine="torch-compile")
    exact = medmaskrcnn.load_model(file, device="cuda", precision="fp32", engine="torch")
    for size in ((192, 256), (256, 128)):
        check_same(fast, exact, torch.randn(2, 1, *size, device="cuda"), ERROR[precision])


def check_same(
    fast: medmaskrcnn.LoadedModel, exact: medmaskrcnn.LoadedModel, images: torch.Tensor, error: float
) -> None:
    """Levels, objectness and deltas of both agree within a share of the largest value."""
    expected, ours = record(exact, images), record(fast, images)
    assert len(ours) == len(expected) == 3 * 5
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        assert (a.float() - b).abs().max() <= error * max(b.abs().max(), 0.1)


def record(loaded: medmaskrcnn.LoadedModel, images: torch.Tensor) -> list[torch.Tensor]:
    """Levels, objectness and deltas that a pass shows."""
    seen: list[torch.Tensor] = []

    def watch(step: str, made: object) -> None:
        if step == "pyramid":
            seen.extend(made)  # type: ignore[call-overload]
        elif step == "rpn":
            seen.extend([*made[0], *made[1]])  # type: ignore[index]

    found = loaded.network.detect(images, watch=watch)
    assert len(found) == 2 and all(d.mask_probabilities is not None for d in found)
    return seen


@pytest.mark.parametrize(
    ("own", "asked", "where", "engine"),
    [
        ("torch-compile", "auto", GPU, "torch-compile"),
        ("torch-compile", "auto", CPU, "torch"),
        ("torch-compile", "auto", torch.device("mps"), "torch"),
        ("torch", "torch-compile", CPU, "torch-compile"),
        ("torch-compile", "torch", GPU, "torch"),
        ("torch", "auto", GPU, "torch"),
    ],
)
def test_a_model_s_own_choice_holds_on_a_gpu(own: str, asked: str, where: torch.device, engine: str) -> None:
    assert resolve_runtime(InferenceSettings(engine=own), "auto", asked, where) == ("auto", engine)  # type: ignore[arg-type]


def test_what_cannot_be_compiled_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: torch.nn.Module, dynamic: bool) -> torch.nn.Module:
        def run(images: torch.Tensor) -> None:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmore")

        return run  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", broken)
    file = save_tiny(settings_of(2), tmp_path / "tiny.safetensors")
    loaded = medmaskrcnn.load_model(file, device="cpu", engine="torch-compile")
    with pytest.raises(MedMaskRCNNError, match=r"no working C\+\+ compiler.*engine='torch'") as caught:
        loaded.network.detect(torch.zeros(1, 1, 64, 64))
    assert "more" not in str(caught.value)

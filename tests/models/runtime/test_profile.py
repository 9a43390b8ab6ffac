"""What a profile books, and the operations it counts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, tiny_settings
from torch import nn
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.cli.main import app
from medmaskrcnn.models.runtime.profile import STAGES, Profile, dense_flops, gemm_rate
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

SETTINGS = tiny_settings(model={"class_names": ("liver",)}, inference={"slices_per_batch": 2})

UPRIGHT = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
"""D up, H to the back, W to the left: nothing is turned."""


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(SETTINGS, tmp_path_factory.mktemp("model") / "tiny.safetensors")


def scan() -> Volume:
    values = np.random.default_rng(0).normal(100, 30, (1, 3, 40, 50)).astype(np.float32)
    return Volume(values, Grid((3, 40, 50), UPRIGHT))


def test_all_time_is_booked_to_stages(model_path: Path) -> None:
    model = medmaskrcnn.load_model(model_path, device="cpu", precision="fp32")
    plain = medmaskrcnn.segment(scan(), model)
    profile = Profile(model.device)
    with profile.listening(model.network):
        began = time.perf_counter()
        seen = medmaskrcnn.segment(scan(), replace(model, watch=profile.watch), progress=profile.progress)
        profile.end()
        took = time.perf_counter() - began
    assert [c.name for c in profile.costs] == [s for s in STAGES if s != "export"]
    assert sum(c.seconds for c in profile.costs) == pytest.approx(took, rel=0.1)
    assert sum(c.share for c in profile.costs) == pytest.approx(1)
    assert dict(profile.shapes) == {(2, 1, 64, 64): 1, (1, 1, 64, 64): 1}
    assert np.array_equal(plain.candidates.boxes, seen.candidates.boxes)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())
    assert profile.dense_flops(model.network) == 3 * dense_flops(model.network, (1, 1, 64, 64))


@pytest.mark.needs(extra="openvino")
def test_what_openvino_runs_is_booked_to_its_stages(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = medmaskrcnn.load_model(model_path, device="cpu", precision="fp32", engine="openvino")
    medmaskrcnn.segment(scan(), model)  # compiles
    align, profile = model.network._align, Profile(model.device)

    def slow_align(*of: Any) -> torch.Tensor:
        time.sleep(0.1)
        return align(*of)

    monkeypatch.setattr(model.network, "_align", slow_align)
    with profile.listening(model.network), ExitStack() as hooks:
        for part, seconds in (("dense", 0.1), ("box_head", 0.2), ("mask_head", 0.3)):
            program = getattr(model.network.compiled, part)
            hooks.callback(program.register_forward_pre_hook(lambda *_, s=seconds: time.sleep(s)).remove)
        medmaskrcnn.segment(scan(), replace(model, watch=profile.watch), progress=profile.progress)
        profile.end()
    two_batches = {"FPN": 0.2, "RoIAlign": 0.4, "box head": 0.4, "mask head": 0.6}  # regions are read for both heads
    assert all(profile.seconds[stage] >= seconds for stage, seconds in two_batches.items())


def test_time_goes_to_the_stage_that_took_it() -> None:
    profile = Profile(torch.device("cpu"))
    profile.progress("read", 0.0)
    time.sleep(0.02)
    profile.progress("read", 1.0)
    profile.progress("prepare", 0.0)
    time.sleep(0.08)
    profile.progress("find", 0.0)
    profile.end()
    assert profile.seconds["read"] >= 0.02 and profile.seconds["preprocess"] >= 0.08


def test_operations_are_those_of_the_layers() -> None:
    network = nn.Module()
    network.pyramid = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    network.rpn_head = nn.Conv2d(5, 2, 1, bias=False)
    assert dense_flops(network, (2, 3, 8, 6)) == 2 * 2 * 48 * (5 * 27 + 2 * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_of_matrix_products_is_a_processors(dtype: torch.dtype) -> None:
    assert 1e8 < gemm_rate(torch.device("cpu"), dtype) < 1e15


def test_command_prints_stages_and_the_limit(
    model_path: Path, tmp_path: Path, make_scan: Callable[[Path], Path]
) -> None:
    result = CliRunner().invoke(
        app, ["segment", str(make_scan(tmp_path)), "-o", str(tmp_path / "out"), "--model", str(model_path), "--profile"]
    )
    assert result.exit_code == 0, result.stderr
    for stage in STAGES:
        assert re.search(rf"^\s*{stage}\s+\d+\.\d+\s+\d+\.\d%\s+\d+", result.stdout, re.MULTILINE), stage
    assert re.search(r"\d+ GFLOP in .* \(\d+% of the limit\)", " ".join(result.stdout.split()))


@pytest.fixture
def make_scan() -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import nibabel as nib

        path = folder / "scan.nii.gz"
        nib.save(nib.Nifti1Image(np.moveaxis(scan().array[0], 0, -1), np.diag([1.0, 1.0, 3.0, 1.0])), path)
        return path

    return make

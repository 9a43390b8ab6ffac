"""Which implementation serves a device: by itself, forced, and where Triton cannot work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from medmaskrcnn_kernels import checked, implementation, nms, roi_align, self_check, use_implementation
from medmaskrcnn_kernels.choice import values_are_checked, why_not_triton

FROM_A_GPU = (
    "import warnings\n"
    "from medmaskrcnn_kernels import implementation\n"
    "with warnings.catch_warnings(record=True) as said:\n"
    "    warnings.simplefilter('always')\n"
    "    name, reason = implementation('cuda')\n"
    "    implementation('cuda')\n"
    "print(name, reason, len(said), said[0].message, sep='|')\n"
)


def test_the_cpu_is_served_by_the_portable_form() -> None:
    assert implementation("cpu") == ("portable", "runs on cpu")


def test_forced_within_a_block_and_no_longer() -> None:
    with use_implementation("triton"):
        assert implementation("cpu")[0] == "triton"
        with use_implementation("portable"):
            assert implementation("cuda")[0] == "portable"
    assert implementation("cpu")[0] == "portable"
    with pytest.raises(ValueError, match="one of auto, portable, triton, got 'cuda'"), use_implementation("cuda"):
        pass


def test_forced_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMASKRCNN_KERNELS", "portable")
    assert implementation("cuda") == ("portable", "forced")
    monkeypatch.setenv("MEDMASKRCNN_KERNELS", "fast")
    with pytest.raises(ValueError, match="MEDMASKRCNN_KERNELS must be one of auto, portable, triton, got 'fast'"):
        implementation("cpu")


def test_without_a_c_compiler_the_portable_form_serves_a_gpu_and_says_so_once() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FROM_A_GPU],
        env={**os.environ, "CC": "/nonexistent"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name, reason, count, message = run.stdout.strip().split("|")
    assert name == "portable"
    assert count == "1"
    assert "CC=/nonexistent" in reason
    assert "run on cuda, more slowly" in message


def test_what_triton_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton is not installed" in why_not_triton()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "C compiler (gcc or clang)" in why_not_triton()
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "Python's headers" in why_not_triton()


@pytest.mark.parametrize("dims", [2, 3])
def test_self_check_reads_and_pulls_every_map(dims: int) -> None:
    results = self_check._results(torch.device("cpu"))
    pulled = {name: value for name, value in results.items() if name.startswith(f"{dims}D RoIAlign backward")}
    assert len(pulled) == 2
    assert all(value.abs().max() == 1 for value in pulled.values())
    assert 0 < len(results[f"{dims}D NMS"]) < self_check.BOXES


def test_self_check_names_the_operator_that_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    real = self_check.multiscale_roi_align

    def spoilt(*arguments: object, **settings: object) -> torch.Tensor:
        pooled = real(*arguments, **settings)
        return pooled + 0.01 if implementation("cpu") == ("triton", "forced") else pooled

    # On the CPU both names are served by the portable form here: agreement first, then one of the two is spoilt.
    monkeypatch.setattr("medmaskrcnn_kernels.library.use_triton", lambda device: False)
    assert self_check.disagreement(torch.device("cpu")) == ""
    monkeypatch.setattr(self_check, "multiscale_roi_align", spoilt)
    assert "2D RoIAlign disagrees with the portable form" in self_check.disagreement(torch.device("cpu"))


def test_a_kernel_that_does_not_run_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> str:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("medmaskrcnn_kernels.choice._chosen", {})
    monkeypatch.setattr("medmaskrcnn_kernels.choice.why_not_triton", lambda: "")
    monkeypatch.setattr("medmaskrcnn_kernels.choice._self_checks", [broken])
    with pytest.warns(RuntimeWarning, match="no kernel image is available"):
        assert implementation("cuda:0")[0] == "portable"


def test_values_are_checked_on_a_gpu_on_request_only() -> None:
    gpu = torch.device("cuda")
    assert values_are_checked(torch.device("cpu"))
    assert not values_are_checked(gpu)
    with checked():
        assert values_are_checked(gpu)
    assert not values_are_checked(gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA or ROCm)")
def test_a_bad_row_on_a_gpu_gives_zeros_and_raises_when_checked() -> None:
    boxes = torch.tensor([[float("nan")] * 4, [0.0, 0.0, 4.0, 4.0]], device="cuda")
    features, index = torch.ones(1, 3, 8, 8, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
    pooled = roi_align(features, boxes, index, output_size=2, spatial_scale=1.0)
    assert not pooled[0].any()
    assert pooled[1].all()
    with checked(), pytest.raises(ValueError, match="boxes row 0 is not a box"):
        roi_align(features, boxes, index, output_size=2, spatial_scale=1.0)
    assert nms(boxes, torch.ones(2, device="cuda"), 0.5).tolist() == [1]

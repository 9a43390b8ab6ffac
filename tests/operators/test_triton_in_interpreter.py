"""The Triton kernels pass the operators' own tests in Triton's interpreter, and compile for GPUs that are not here.

`make test-operators` runs this with each version of torch and triton; `make test` leaves it out.
The interpreter is chosen when a kernel is decorated, so it needs a process of its own; compiling needs one without it.
The interpreters of triton 3.4 to 3.6 (torch 2.8 to 2.11) need numpy 2.3 or older: they convert arrays in a way that
numpy 2.4 refuses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = [HERE / f"test_{name}.py" for name in ("roi_align", "multiscale_roi_align", "nms", "paste_masks")]
COMPILE = Path(__file__).parents[2] / "benchmarks" / "kernels_compile.py"

pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux (no GPU is needed)")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_operators_pass_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "any_implementation", *map(str, TESTS)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "MEDMASKRCNN_KERNELS": "triton"}
    run = subprocess.run(
        [*command, "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:napari"],
        cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and " skipped" not in run.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_compile_without_spills(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(COMPILE), "--json", str(tmp_path / "costs.json")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    rows = json.loads((tmp_path / "costs.json").read_text())["rows"]
    assert {row["target"] for row in rows} == {"sm_80", "sm_90", "gfx942"}
    assert all(row["registers"] > 0 and row["spilled_bytes"] == 0 for row in rows)

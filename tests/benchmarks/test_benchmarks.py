"""The way into the benchmarks, and what each says of the machine."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCHMARKS, *words], capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_all_are_listed_and_one_is_run() -> None:
    listed = run()
    assert listed.returncode == 0, listed.stderr
    for name in ("speed", "whole_ct", "growth", "training_throughput", "peer_nuclei", "ablations", "kernels_gpu"):
        assert f"\n{name} " in listed.stdout
    assert not any(f"\n{name} " in listed.stdout for name in ("torchvision_peer", "ablation_networks", "machine"))
    helped = run("beside-nnunet", "train", "--help")
    assert helped.returncode == 0 and "--hours" in helped.stdout, helped.stderr
    unknown = run("sped")
    assert unknown.returncode == 1 and "no benchmark sped" in unknown.stderr


def test_figures_say_what_they_are_of_and_name_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/growth.py", "/home/someone/growth.json", "--largest", "256"])
    said = runpy.run_path(str(BENCHMARKS / "machine.py"))["machine"]("torchvision")
    assert said["command"] == "python benchmarks growth growth.json --largest 256"
    assert said["commit"] is None or len(said["commit"]) == 40
    assert said["processor"] and said["cores"] >= 1
    assert set(said["versions"]) == {"torch", "torchvision"}


def test_walk_records_what_is_called_and_made() -> None:
    walk = runpy.run_path(str(BENCHMARKS / "walk.py"))
    crossed = walk["Walk"]()
    sys.setprofile(crossed.note)
    try:
        assert Grid((2, 3, 4), np.eye(4)).spacing_mm == (1, 1, 1)
    finally:
        sys.setprofile(None)
    found = walk["summary"](crossed)
    assert found["record types"] == ["medmaskrcnn.structures.grid.Grid"]
    (functions,) = found["rooms"]["structures"].values()
    assert {"Grid.__post_init__", "Grid.spacing_mm"} <= set(functions) and found["functions"] == len(functions)

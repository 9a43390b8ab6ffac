"""The planner's estimate of memory beside what a training step really takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medmaskrcnn.models.build import build_model
from medmaskrcnn.training.plan import read_plan
from medmaskrcnn.training.planner import memory as planner_memory
from medmaskrcnn.training.planner.memory import GIB, PROGRAM, count_parameters, memory_of_machine, step_memory

AT_LEAST, AT_MOST = 0.75, 2.0  # of what was measured

_STEP = """
import re, sys, torch
from pathlib import Path
import monai.apps.detection.utils.ATSS_matcher  # imported by the first step, and part of the program
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import Targets
from medmaskrcnn.training.planner import memory as planner_memory
from medmaskrcnn.training.plan import read_plan

def memory(key):
    return 1024 * int(re.search(rf"{key}:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

name, side, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
settings = read_plan(name).model

def step(losses, optimizer, *batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses(*batch)
    sum(loss.values()).backward()
    optimizer.step()

convolution = torch.nn.Conv2d(1, 1, 3)  # loads the libraries that a first step loads
step(lambda x: {"mean": convolution(x).mean()}, torch.optim.AdamW(convolution.parameters()), torch.randn(1, 1, 8, 8))
before = memory("VmRSS")
model = build_model(settings).train()
optimizer = torch.optim.AdamW(model.parameters())
shape = (side,) * settings.spatial_dims
low = torch.rand(count, len(shape)) * side / 2
boxes = torch.cat([low, low + side / 3], dim=1)
targets = Targets(boxes, torch.zeros(count, dtype=torch.int64), torch.full((count, *shape), 255, dtype=torch.uint8))
for _ in range(2):
    step(model.losses, optimizer, torch.randn(1, settings.input_channels, *shape), [targets])
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to measure memory")
@pytest.mark.parametrize(("name", "side", "count"), [("sarcoma-mr", 48, 2), ("nuclei", 192, 12)])
def test_the_estimate_is_near_the_peak_of_a_step(name: str, side: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STEP, name, str(side), str(count)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    measured = float(done.stdout)
    model = read_plan(name).model
    patch = (side if model.spatial_dims == 3 else 1, side, side)
    parameters = count_parameters(model)
    estimated = step_memory(model, patch, batch=1, objects=count, parameters=parameters) - PROGRAM
    assert AT_LEAST * measured <= estimated <= AT_MOST * measured, (measured / 2**20, estimated / 2**20)


def test_parameters_are_counted_without_making_them() -> None:
    model = read_plan("sarcoma-mr").model
    assert count_parameters(model) == sum(p.numel() for p in build_model(model).parameters())


def test_more_of_anything_takes_more_memory() -> None:
    model = read_plan("sarcoma-mr").model
    parameters = count_parameters(model)

    def takes(patch: tuple[int, int, int] = (64, 96, 96), batch: int = 1, objects: int = 1) -> float:
        return step_memory(model, patch, batch=batch, objects=objects, parameters=parameters)

    assert takes(patch=(64, 96, 112)) > takes() < takes(objects=2)
    assert takes(batch=2) - takes() == pytest.approx(takes(batch=3) - takes(batch=2)), "each window costs as much"
    deep = model.model_copy(update={"backbone": model.backbone.model_copy(update={"name": "resnet50"})})
    of_deep = step_memory(deep, (64, 96, 96), batch=1, objects=1, parameters=parameters)
    assert of_deep - PROGRAM > 3 * (takes() - PROGRAM)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's memory counts where there is one")
def test_half_of_the_memory_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(planner_memory, "_CGROUP_LIMIT", limit)
    machine = memory_of_machine()
    assert 0.25 * GIB < machine < 10_000 * GIB
    limit.write_text("max\n")
    assert memory_of_machine() == machine
    limit.write_text("200000000\n")
    assert memory_of_machine() == 1e8

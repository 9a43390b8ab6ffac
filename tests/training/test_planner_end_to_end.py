"""From labelled files to a model: what the planner decides is what training takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn.training.run import train


@pytest.mark.slow
@pytest.mark.parametrize("dims", [3, 2.5])
def test_a_planned_network_is_trained(labelled: Callable[..., Path], tmp_path: Path, dims: float) -> None:
    path = labelled()
    one = json.loads(path.read_text())["cases"][0]
    path = labelled(cases=[one, {**one, "id": "c2", "patient": "p2", "split": "val"}])
    manifest = read_manifest(path)
    report = check_manifest(manifest, workers=0)
    plan, _ = make_plan(manifest, report.case_fingerprints, memory_gb=4, dims=dims)
    assert plan.preprocess.windows and plan.model.class_names == ("liver", "tumour")
    plan = plan.model_copy(update={"train": plan.train.model_copy(update={"steps": 2, "batch": 1})})
    record = train(manifest, plan, tmp_path / "run", check=False, device="cpu", workers=0)
    assert record.steps == 2
    assert read_model_settings(record.model).preprocess == plan.preprocess
    assert record.model.stat().st_size < 12e6

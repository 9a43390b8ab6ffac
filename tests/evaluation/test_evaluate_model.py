"""What of a model's result is evaluated: the scans and labels are files, the model's result is made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny, tiny_settings

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn.evaluation import evaluate as module
from medmaskrcnn.evaluation.evaluate import Evaluation, evaluate
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

NAMES = ("liver", "left kidney")
GRID = Grid((6, 30, 30), np.diag([4.0, 1.5, 1.5, 1.0]))
Part = tuple[str, tuple[slice, ...], float]
LIVER, KIDNEY = np.s_[1:5, 2:18, 2:18], np.s_[1:5, 18:26, 2:12]


def instances(parts: list[Part]) -> Instances:
    dense = np.zeros((len(parts), *GRID.shape), np.bool_)
    for mask, (_, window, _) in zip(dense, parts, strict=True):
        mask[window] = True
    masks = [Mask((0, 0, 0), mask).tight() for mask in dense]
    labels = [NAMES.index(name) for name, _, _ in parts]
    return Instances.from_masks(GRID, NAMES, labels, masks, scores=[score for _, _, score in parts])


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Evaluation]:
    """``evaluated(candidates)``: a model that finds these in a scan with a liver and a kidney, evaluated on it."""
    write_nifti(np.zeros(GRID.shape, np.int16), GRID, tmp_path / "scan.nii.gz")
    labels = np.zeros(GRID.shape, np.uint8)
    labels[LIVER], labels[KIDNEY] = 1, 2
    write_nifti(labels, GRID, tmp_path / "labels.nii.gz")
    objects = tuple(ManifestInstance(value=i + 1, class_name=name) for i, name in enumerate(NAMES))
    case = ManifestCase(id="a", patient="a", image="scan.nii.gz", label="labels.nii.gz", instances=objects)
    manifest = Manifest(name="organs", class_names=NAMES, cases=(case,), folder=str(tmp_path))
    settings = tiny_settings(3, inference={"score": 0.5})
    save_tiny(settings, tmp_path / "tiny.safetensors")

    def run(candidates: Instances) -> Evaluation:
        def found(volume: Volume, *_: object, **__: object) -> CaseResult:
            record = RunRecord("medmaskrcnn 0", "tiny", "0" * 64, "CC0", "cpu", "fp32")
            return CaseResult(candidates, 0.5, measure_instances(volume, candidates), record)

        monkeypatch.setattr(module, "segment", found)
        return evaluate(
            tmp_path / "tiny.safetensors", manifest, split="all", device="cpu", settings=MetricSettings(replicates=0)
        )

    return run


def test_removed_candidates_are_not_evaluated(evaluated: Callable[..., Evaluation]) -> None:
    found = instances([("liver", LIVER, 0.9), ("left kidney", KIDNEY, 0.8), ("liver", KIDNEY, 0.7)])
    removed = replace(found, removed=np.array([0, 0, Removal.DUPLICATE], np.uint8))
    twice, once, without = evaluated(found), evaluated(removed), evaluated(found.select([0, 1]))
    assert twice.classes["liver"].predictions == 2
    for name in NAMES:
        assert vars(once.classes[name]) == vars(without.classes[name])
    assert once.classes["liver"].predictions == 1
    assert len(once.cases[0].objects) == 2

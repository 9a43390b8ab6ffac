"""A small scan with a liver, a tumour in it, a candidate below the threshold and one without voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmaskrcnn.results.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Provenance, Volume

Case = tuple[CaseResult, Volume]

SHAPE = (12, 20, 24)


def spl_affine() -> np.ndarray:
    """Slices of 3 mm upwards, rows of 2 mm to the back, columns of 1.5 mm to the left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3, -2, -1.5, 1
    affine[:3, 3] = 17.25, 20.5, -40.125
    return affine


def make_case(grid: Grid, *, colour: bool = False, **record: Any) -> Case:
    """The scan on ``grid`` (of shape SHAPE or one slice of it) and its result, ids: liver 1, tumour 2."""
    flat = grid.shape[0] == 1
    liver, tumour = np.ones((1 if flat else 6, 10, 12), bool), np.ones((1 if flat else 2, 3, 4), bool)
    starts = [[0 if flat else 5, 8, 10], [0 if flat else 3, 4, 6], [0, 0, 0], [0, 0, 0]]
    masks = (tumour, liver, np.ones((1, 1, 1), bool), np.zeros((0, 0, 0), bool))
    low = np.array(starts)
    high = low + [m.shape for m in masks]
    found = Instances(
        grid=grid,
        class_names=("liver", "tumour"),
        labels=np.array([1, 0, 1, 0]),
        scores=np.array([0.9, 0.8, 0.1, 0.75], np.float32),
        boxes=np.concatenate([low - 0.25, high + 0.5], axis=1).astype(np.float32),
        mask_starts=np.array([starts[0], starts[1], *starts[2:]]),
        masks=masks,
    )
    n_channels = 3 if colour else 1
    array = np.arange(n_channels * np.prod(grid.shape)).reshape(n_channels, *grid.shape)
    volume = Volume(
        (array % 251).astype(np.uint8 if colour else np.int16),
        grid,
        modality=None if colour else "CT",
        channel_kind="colour" if colour else "scalar",
        provenance=Provenance(files=("/patients/DOE^JANE/scan.nii.gz",)),
    )
    settings: dict[str, Any] = {"score": 0.5, **record.pop("settings", {})}
    made = RunRecord("medmaskrcnn 0.1.0", "m", "ab" * 32, "Apache-2.0", "cpu", "fp32", settings, {"modality": "CT"})
    run = {"host": "ward-7", "seconds": {"total": 3.5}, "input": "/patients/DOE^JANE"}
    return CaseResult(found, 0.5, measure_instances(volume, found), replace(made, **record), run), volume


@pytest.fixture
def case() -> Case:
    return make_case(Grid(SHAPE, spl_affine()))


@pytest.fixture
def build() -> Callable[..., Case]:
    return make_case


@pytest.fixture
def picture() -> Case:
    return make_case(pixel_grid((1, *SHAPE[1:])), colour=True)

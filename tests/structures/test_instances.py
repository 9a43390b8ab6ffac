"""Instances and what stands on them: crops, overlap counts, results and volumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances, empty_instances, tight_crop
from medmaskrcnn.structures.overlap import meeting_pairs, shared_voxels, voxel_counts
from medmaskrcnn.structures.volume import Volume

GRID = Grid((6, 8, 10), np.eye(4))


def dense(found: Instances, i: int) -> np.ndarray:
    full = np.zeros(found.grid.shape, bool)
    full[found.window(i)] = found.masks[i]
    return full


def random_instances(seed: int, n: int) -> Instances:
    rng = np.random.default_rng(seed)
    starts, masks = [], []
    for _ in range(n):
        low = rng.integers(0, np.array(GRID.shape) - 1)
        high = rng.integers(low + 1, np.array(GRID.shape) + 1)
        start, mask = tight_crop(rng.random(high - low) < rng.choice([0, 0.1, 0.6]), low)
        starts.append(start)
        masks.append(mask)
    return Instances(
        GRID,
        ("a", "b"),
        rng.integers(0, 2, n),
        np.sort(rng.random(n, np.float32))[::-1],
        rng.random((n, 6), np.float32),
        np.array(starts, np.int64).reshape(-1, 3),
        tuple(masks),
    )


def test_tight_crop_by_hand() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 2, 1] = mask[2, 2, 3] = True
    start, crop = tight_crop(mask, (10, 20, 30))
    assert start == (11, 22, 31) and crop.shape == (2, 1, 3) and crop.flags.c_contiguous
    assert crop[0, 0].tolist() == [True, False, False] and crop[1, 0].tolist() == [False, False, True]


def test_tight_crop_of_nothing() -> None:
    start, crop = tight_crop(np.zeros((3, 4, 5), bool), (1, 2, 3))
    assert start == (1, 2, 3) and crop.shape == (0, 0, 0) and crop.dtype == np.bool_


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_crops_are_tight_and_lose_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = rng.random(GRID.shape) < 0.02
    full[3, 4, 5] = True
    start, crop = tight_crop(full, (0, 0, 0))
    back = np.zeros_like(full)
    back[tuple(slice(a, a + n) for a, n in zip(start, crop.shape, strict=True))] = crop
    assert np.array_equal(back, full)
    for axis in range(3):
        sides = crop.take([0, -1], axis)
        assert sides.any(axis=tuple(a for a in range(3) if a != axis)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shared_voxels_equal_those_of_dense_masks(seed: int) -> None:
    first, second = random_instances(seed, 4), random_instances(seed + 1, 3)
    counts = np.array([[(dense(first, i) & dense(second, j)).sum() for j in range(3)] for i in range(4)])
    assert [[shared_voxels(first, i, second, j) for j in range(3)] for i in range(4)] == counts.tolist()
    assert set(zip(*np.nonzero(counts), strict=True)) <= set(meeting_pairs(first, second))
    assert voxel_counts(first).tolist() == [dense(first, i).sum() for i in range(4)]


def test_meeting_pairs_need_one_grid() -> None:
    with pytest.raises(ValueError, match="one grid"):
        list(meeting_pairs(random_instances(0, 2), empty_instances(Grid((1, 2, 3), np.eye(4)), ("a",))))


def test_select_keeps_rows_together() -> None:
    found = random_instances(3, 5)
    some = found.select([4, 1])
    assert len(some) == 2 and some.scores.tolist() == found.scores[[4, 1]].tolist()
    assert np.array_equal(dense(some, 0), dense(found, 4)) and np.array_equal(some.boxes[1], found.boxes[1])
    assert len(found.select([])) == 0


def test_tight_box_is_half_open() -> None:
    found = replace(
        empty_instances(GRID, ("a",)).select([]),
        labels=np.array([0]),
        scores=np.ones(1, np.float32),
        boxes=np.zeros((1, 6), np.float32),
        mask_starts=np.array([[1, 2, 3]]),
        masks=(np.ones((2, 1, 4), bool),),
    )
    assert found.tight_box(0) == ((1, 2, 3), (3, 3, 7))
    assert found.window(0) == (slice(1, 3), slice(2, 3), slice(3, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(2, np.int64)}, "labels must have shape"),
        ({"boxes": np.zeros((3, 4), np.float32)}, "boxes must have shape"),
        ({"labels": np.array([0, 1, 2])}, "labels must lie in 0..1"),
        ({"labels": np.array([0, 1, -1])}, "labels must lie in 0..1"),
        ({"mask_starts": np.array([[0, 0, 0], [0, 0, 0], [5, 7, 10]])}, "leaves grid"),
        ({"mask_starts": np.array([[0, 0, 0], [0, 0, 0], [0, 0, -1]])}, "leaves grid"),
        ({"masks": (np.ones((1, 1, 1)),) * 3}, "must be boolean"),
        ({"masks": (np.ones((1, 1), bool),) * 3}, "must be boolean"),
    ],
)
def test_inconsistent_instances_are_refused(change: dict[str, Any], message: str) -> None:
    good = replace(
        random_instances(0, 3), masks=(np.ones((1, 1, 1), bool),) * 3, mask_starts=np.zeros((3, 3), np.int64)
    )
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


RECORD = RunRecord("medmaskrcnn", "m", "", "", "cpu", "fp32")
FIGURE = Measurement("mm", 1, None, None, None, None, None, None)


def test_ids_run_by_class_then_falling_score() -> None:
    scores, labels = [0.9, 0.8, 0.8, 0.7, 0.5, 0.49], [1, 0, 1, 0, 0, 0]
    masks = [np.ones((1, 1, 1), bool)] * 6
    masks[3] = np.zeros((0, 0, 0), bool)
    found = Instances(
        GRID,
        ("a", "b"),
        np.array(labels),
        np.array(scores, np.float32),
        np.zeros((6, 6), np.float32),
        np.zeros((6, 3), np.int64),
        tuple(masks),
    )
    result = CaseResult(found, 0.5, (FIGURE,) * 6, RECORD)
    assert result.kept == [1, 4, 0, 2]  # the empty one (3) and the one below the threshold (5) are left out
    assert result.instances.labels.tolist() == [0, 0, 1, 1]


def test_a_score_at_the_threshold_is_kept_although_float32_cannot_hold_it() -> None:
    found = random_instances(1, 1)
    found = replace(
        found,
        scores=np.array([0.3], np.float32),
        masks=(np.ones((1, 1, 1), bool),),
        mask_starts=np.zeros((1, 3), np.int64),
    )
    assert CaseResult(found, 0.3, (FIGURE,), RECORD).kept == [0]
    assert CaseResult(found, 0.30001, (FIGURE,), RECORD).kept == []


def test_each_candidate_needs_a_measurement() -> None:
    with pytest.raises(ValueError, match="3 instances need as many measurements, got 1"):
        CaseResult(random_instances(0, 3), 0.5, (FIGURE,), RECORD)


def test_volume_checks_its_array() -> None:
    grid = pixel_grid((1, 4, 5))
    volume = Volume(np.zeros((3, 1, 4, 5), np.uint8), grid, channel_kind="colour")
    assert volume.is_planar and volume.spacing_mm is None
    assert volume.affine_vox_to_ras is grid.affine_vox_to_ras
    with pytest.raises(ValueError, match=r"array must be \(C, D, H, W\)"):
        Volume(np.zeros((1, 4, 5)), grid)
    with pytest.raises(ValueError, match="must be"):
        Volume(np.zeros((1, 1, 5, 4)), grid)
    with pytest.raises(ValueError, match="real numbers"):
        Volume(np.zeros((1, 1, 4, 5), complex), grid)

"""Instances and what stands on them: overlap counts, layers, results and volumes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn.structures import overlap
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.overlap import overlapping_pairs, pack_layers, shared_voxel_counts, voxel_counts
from medmaskrcnn.structures.volume import Volume

GRID = Grid((6, 8, 10), np.eye(4))


def random_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    low = rng.integers(0, np.array(shape) - 1)
    high = rng.integers(low + 1, np.array(shape) + 1)
    return Mask(low, rng.random(high - low) < rng.choice([0, 0.1, 0.6])).tight()


def random_instances(seed: int, n: int) -> Instances:
    rng = np.random.default_rng(seed)
    return Instances(
        GRID,
        ("a", "b"),
        rng.integers(0, 2, n),
        np.sort(rng.random(n, np.float32))[::-1],
        rng.random((n, 6), np.float32),
        tuple(random_mask(rng, GRID.shape) for _ in range(n)),
    )


def voxel(start: tuple[int, int, int]) -> Mask:
    return Mask(start, np.ones((1, 1, 1), bool))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shared_voxels_equal_those_of_dense_masks(seed: int) -> None:
    first, second = random_instances(seed, 4), random_instances(seed + 1, 3)
    a, b = ([mask.dense(GRID.shape) for mask in side.masks] for side in (first, second))
    counts = np.array([[(one & other).sum() for other in b] for one in a])
    assert np.array_equal(shared_voxel_counts(first, second), counts)
    wanted = np.random.default_rng(seed).random(counts.shape) < 0.5
    assert np.array_equal(shared_voxel_counts(first, second, wanted=wanted), np.where(wanted, counts, 0))
    assert voxel_counts(first).tolist() == [mask.sum() for mask in a]
    everything, dense = [*first.masks, *second.masks], [*a, *b]
    expected = [(i, j, int((dense[i] & dense[j]).sum())) for i, j in combinations(range(len(dense)), 2)]
    assert overlapping_pairs(everything) == [(i, j, n) for i, j, n in expected if n]


def test_shared_voxels_need_one_grid() -> None:
    with pytest.raises(ValueError, match="one grid"):
        shared_voxel_counts(random_instances(0, 2), empty_instances(Grid((1, 2, 3), np.eye(4)), ("a",)))


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_no_pair_is_lost_among_many_small_objects_and_a_large_one(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_PAIRS_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    masks = [Mask(rng.integers(0, 40, 3), np.ones(rng.integers(1, 5, 3), bool)) for _ in range(60)]
    masks.insert(30, Mask((2, 3, 4), np.ones((30, 30, 30), bool)))
    expected = [(i, j, masks[i].overlap(masks[j])) for i, j in combinations(range(61), 2)]
    assert overlapping_pairs(masks) == [(i, j, n) for i, j, n in expected if n]


def test_layers_by_hand() -> None:
    """The first layer with room: 2 lies in 0, 3 in none, 4 in 0 and 2."""
    bar = [Mask((0, 0, a), np.ones((1, 1, b - a), bool)) for a, b in ((0, 4), (6, 9), (3, 5), (10, 12), (3, 4))]
    assert pack_layers(bar) == [[0, 1, 3], [2], [4]]
    assert pack_layers([]) == []


@given(seed=st.integers(0, 10**6))
def test_layers_hold_every_mask_once_and_nothing_overlaps_in_one(seed: int) -> None:
    masks = random_instances(seed, 7).masks
    layers = pack_layers(masks)
    assert sorted(i for layer in layers for i in layer) == list(range(7))
    assert all(sum(masks[i].dense(GRID.shape).astype(int) for i in layer).max() <= 1 for layer in layers)


def test_select_keeps_rows_together() -> None:
    found = random_instances(3, 5)
    some = found.select([4, 1])
    assert len(some) == 2 and some.scores.tolist() == found.scores[[4, 1]].tolist()
    assert some.masks == (found.masks[4], found.masks[1]) and np.array_equal(some.boxes[1], found.boxes[1])
    assert len(found.select([])) == 0


def test_of_masks_the_boxes_are_those_around_them() -> None:
    found = Instances.from_masks(GRID, ("a", "b"), [1], [Mask((1, 2, 3), np.ones((2, 1, 4), bool))])
    assert found.boxes.tolist() == [[1, 2, 3, 3, 3, 7]] and found.boxes.dtype == np.float32
    assert found.scores.tolist() == [1] and found.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(2, np.int64)}, "labels must have shape"),
        ({"boxes": np.zeros((3, 4), np.float32)}, "boxes must have shape"),
        ({"labels": np.array([0, 1, 2])}, "labels must lie in 0..1"),
        ({"labels": np.array([0, 1, -1])}, "labels must lie in 0..1"),
        ({"masks": (voxel((0, 0, 0)), voxel((0, 0, 0)), voxel((5, 7, 10)))}, "leaves grid"),
        ({"masks": (voxel((0, 0, 0)), voxel((0, 0, 0)), voxel((0, 0, -1)))}, "leaves grid"),
        ({"masks": (Mask((0, 0, 0), np.ones((1, 1, 1), np.uint8)),) * 3}, "must be boolean"),
    ],
)
def test_inconsistent_instances_are_refused(change: dict[str, Any], message: str) -> None:
    good = replace(random_instances(0, 3), masks=(voxel((0, 0, 0)),) * 3)
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


RECORD = RunRecord("medmaskrcnn", "m", "", "", "cpu", "fp32")
FIGURE = Measurement("mm", 1, None, None, None, None, None, None)


def test_ids_run_by_class_then_falling_score() -> None:
    scores, labels = [0.9, 0.8, 0.8, 0.7, 0.5, 0.49], [1, 0, 1, 0, 0, 0]
    masks = [voxel((0, 0, 0))] * 6
    masks[3] = Mask.empty()
    found = Instances.from_masks(GRID, ("a", "b"), labels, masks, scores=scores)
    result = CaseResult(found, 0.5, (FIGURE,) * 6, RECORD)
    assert result.kept == [1, 4, 0, 2]  # the empty one (3) and the one below the threshold (5) are left out
    assert result.instances.labels.tolist() == [0, 0, 1, 1]


def test_a_score_at_the_threshold_is_kept_although_float32_cannot_hold_it() -> None:
    found = Instances.from_masks(GRID, ("a",), [0], [voxel((0, 0, 0))], scores=[0.3])
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

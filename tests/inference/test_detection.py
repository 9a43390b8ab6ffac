"""Detections to voxels, and voxels to the scan: against slow loops and dense arrays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmaskrcnn.inference.detection import Detection, join_detections, paste_detections, to_instances
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask

SHAPE = (6, 8, 7)
Dense = np.ndarray


def slow_probability(cells: np.ndarray, box: np.ndarray, voxel: tuple[int, ...]) -> float:
    """Mask probability at a voxel's centre: linear between the cells' centres, constant beyond, 0 outside the box."""
    dims = len(voxel)
    weights = []
    for axis, index in enumerate(voxel):
        low, high, m = float(box[axis]), float(box[dims + axis]), cells.shape[axis]
        centre = index + 0.5
        if not low <= centre < high:
            return 0.0
        at = min(max((centre - low) / (high - low) * m - 0.5, 0.0), m - 1.0)
        before = min(int(at), m - 2) if m > 1 else 0
        line = np.zeros(m)
        line[before] = 1 - (at - before)
        if m > 1:
            line[before + 1] = at - before
        weights.append(line)
    value = cells.astype(np.float64)
    for line in weights:
        value = np.tensordot(line, value, axes=1)
    return float(value)


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 11)])
def test_paste_against_loops(shape: tuple[int, ...], as_dense: Callable[..., Dense]) -> None:
    dims, generator = len(shape), torch.Generator().manual_seed(len(shape))
    low = torch.rand((7, dims), generator=generator) * (torch.tensor(shape) - 2) - 1
    high = low + 0.3 + torch.rand((7, dims), generator=generator) * torch.tensor(shape)
    boxes = torch.cat([low, high], dim=1)
    probabilities = torch.rand((7, *(4,) * dims), generator=generator)
    labels, scores = torch.arange(7), torch.linspace(0.1, 0.9, 7)
    found = paste_detections(boxes, labels, scores, probabilities, shape=shape, threshold=0.5)
    assert [f.label for f in found] == list(range(7))
    for i, item in enumerate(found):
        expected = np.zeros((1,) * (3 - dims) + shape, bool)
        for voxel in product(*(range(n) for n in shape)):
            value = slow_probability(probabilities[i].numpy(), boxes[i].numpy(), voxel)
            assert abs(value - 0.5) > 1e-6  # no voxel hangs on rounding
            expected[(0,) * (3 - dims) + voxel] = value >= 0.5
        np.testing.assert_array_equal(as_dense(item, expected.shape), expected)
        assert item.score == pytest.approx(float(scores[i]))
        assert item.mask == item.mask.tight()


def test_paste_by_hand() -> None:
    cells = torch.tensor([[[0.9, 0.1], [0.9, 0.9]]])
    (item,) = paste_detections(
        torch.tensor([[1.0, 2.0, 5.0, 6.0]]), torch.tensor([1]), torch.tensor([0.5]), cells, shape=(8, 8), threshold=0.5
    )
    # rows 1 and 2 lie in the upper cells, columns 4 and 5 in the right ones; only their corner is below one half
    assert item.mask.start == (0, 1, 2) and item.mask.array[0].tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    assert item.box.tolist() == [0, 1, 2, 1, 5, 6] and item.label == 1


def test_paste_without_a_mask_head_fills_the_box() -> None:
    (item,) = paste_detections(
        torch.tensor([[-1.0, 2.0, 0.5, 2.0, 4.0, 99.0]]),
        torch.tensor([0]),
        torch.tensor([1.0]),
        None,
        shape=(4, 5, 6),
        threshold=0.5,
    )
    assert item.mask == Mask((0, 2, 0), np.ones((2, 2, 6), bool))


def test_paste_of_nothing() -> None:
    def paste_one(boxes: torch.Tensor, probability: float) -> list[Detection]:
        n = len(boxes)
        cells = torch.full((n, 4, 4, 4), probability)
        return paste_detections(boxes, torch.zeros(n), torch.ones(n), cells, shape=SHAPE, threshold=0.5)

    assert paste_one(torch.zeros(0, 6), 1.0) == []
    inside, outside = torch.tensor([[1.0, 1, 1, 4, 4, 4]]), torch.tensor([[9.0, 1, 1, 14, 4, 4]])
    assert paste_one(inside, 1.0)[0].mask.array.shape == (3, 3, 3)
    assert paste_one(inside, 0.4)[0].mask.array.size == 0
    assert paste_one(outside, 1.0)[0].mask.array.size == 0


def random_detection(seed: int, share: float = 0.4, *, shape: tuple[int, int, int] = SHAPE) -> tuple[Detection, Dense]:
    rng = np.random.default_rng(seed)
    dense = np.zeros(shape, bool)
    low = [int(rng.integers(0, n - 1)) for n in shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, shape, strict=True)]
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    dense[window] = rng.random(dense[window].shape) < share
    dense[tuple(low)] = True
    mask = Mask((0, 0, 0), dense).tight()
    box = mask.box + rng.uniform(-0.25, 0.25, 6).astype(np.float32)
    return Detection(seed % 3, float(rng.random()), box, mask), dense


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_joined_against_dense(one: int, two: int) -> None:
    (a, dense_a), (b, dense_b) = random_detection(one), random_detection(two)
    joined = join_detections([a, b], score=0.25)
    np.testing.assert_array_equal(joined.mask.dense(SHAPE), dense_a | dense_b)
    assert joined.score == 0.25 and joined.label == a.label
    np.testing.assert_array_equal(joined.box[:3], np.minimum(a.box[:3], b.box[:3]))
    np.testing.assert_array_equal(joined.box[3:], np.maximum(a.box[3:], b.box[3:]))


axis_maps = st.builds(AxisMap, st.permutations(range(3)).map(tuple), st.tuples(*[st.booleans()] * 3))


@given(axis_maps, st.lists(st.integers(0, 10_000), max_size=5))
def test_to_instances_turns_everything_back(axes: AxisMap, seeds: list[int]) -> None:
    """Masks against dense arrays that were turned back by plain indexing, boxes by the voxels at their corners."""
    pairs = [random_detection(seed) for seed in seeds]
    scan_shape = [0, 0, 0]
    for axis, source in enumerate(axes.order):
        scan_shape[source] = SHAPE[axis]
    grid = Grid((scan_shape[0], scan_shape[1], scan_shape[2]), np.diag([2.0, 1, 1, 1]))
    instances = to_instances(
        [f for f, _ in pairs], grid=grid, class_names=("a", "b", "c"), turned_shape=SHAPE, axes=axes
    )
    order = sorted(range(len(pairs)), key=lambda i: -pairs[i][0].score)
    np.testing.assert_array_equal(instances.scores, np.array([pairs[i][0].score for i in order], np.float32))
    for k, i in enumerate(order):
        found, turned = pairs[i]
        expected = np.zeros(scan_shape, bool)
        for voxel in np.argwhere(turned):
            expected[back(voxel, axes)] = True
        np.testing.assert_array_equal(instances.masks[k].dense(scan_shape), expected)
        assert instances.labels[k] == found.label
        centre = (instances.boxes[k, :3] + instances.boxes[k, 3:]) / 2 - 0.5
        np.testing.assert_allclose(centre, back((found.box[:3] + found.box[3:]) / 2 - 0.5, axes), atol=1e-5)
        edges = found.box[3:] - found.box[:3]
        np.testing.assert_allclose(
            (instances.boxes[k, 3:] - instances.boxes[k, :3])[list(axes.order)], edges, atol=1e-5
        )


def back(voxel: np.ndarray, axes: AxisMap) -> tuple:
    """A voxel index of the turned scan in the scan."""
    out = [voxel[0]] * 3
    for axis, source in enumerate(axes.order):
        out[source] = SHAPE[axis] - 1 - voxel[axis] if axes.flips[axis] else voxel[axis]
    return tuple(out)


def test_candidates_without_a_voxel_keep_their_box() -> None:
    nowhere = Mask((5, 7, 6), np.zeros((0, 0, 0), bool))
    empty = Detection(0, 0.7, np.array([1, 1, 1, 2, 2, 2], np.float32), nowhere)
    axes = AxisMap((0, 1, 2), (True, True, True))
    instances = to_instances([empty], grid=Grid(SHAPE, np.eye(4)), class_names=("a",), turned_shape=SHAPE, axes=axes)
    assert instances.masks == (Mask.empty(),)
    assert instances.boxes.tolist() == [[4, 6, 5, 5, 7, 6]]


def test_equal_scores_keep_their_order() -> None:
    found = [random_detection(seed)[0] for seed in range(6)]
    tied = [Detection(i % 3, 0.5, f.box, f.mask) for i, f in enumerate(found)]
    axes = AxisMap((0, 1, 2), (False, False, False))
    instances = to_instances(
        tied, grid=Grid(SHAPE, np.eye(4)), class_names=("a", "b", "c"), turned_shape=SHAPE, axes=axes
    )
    assert instances.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert instances.masks == tuple(one.mask for one in tied)

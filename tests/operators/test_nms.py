"""Non-maximum suppression: torchvision index for index in 2D, the reference in 3D, ties, classes, thresholds."""

from __future__ import annotations

import os

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmaskrcnn_kernels import batched_nms, library, nms, nms_portable, reference

EXAMPLES = 8 if os.environ.get("TRITON_INTERPRET") else 20


def torchvision_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return torchvision.ops.nms(boxes[:, [1, 0, 3, 2]], scores, iou_threshold)


@st.composite
def detections(draw: st.DrawFn, dims: int, most: int) -> tuple[Tensor, Tensor, float]:
    """Boxes on a coarse grid, so that equal boxes, touching boxes and IoUs of exactly the threshold are common."""
    edge = st.integers(0, 6) if draw(st.booleans()) else st.floats(0, 50, width=32)
    count = draw(st.integers(0, most))
    pairs = draw(st.lists(st.tuples(edge, edge), min_size=count * dims, max_size=count * dims))
    low = torch.tensor([min(p) for p in pairs], dtype=torch.float32).view(-1, dims)
    high = torch.tensor([max(p) for p in pairs], dtype=torch.float32).view(-1, dims)
    scores = draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    threshold = draw(st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0]))
    return torch.cat([low, high], 1), torch.tensor(scores, dtype=torch.float32) / 8, threshold


@pytest.mark.any_implementation
@settings(max_examples=EXAMPLES)
@given(detections(dims=2, most=60))
def test_agrees_with_torchvision(found: tuple[Tensor, Tensor, float]) -> None:
    assert torch.equal(nms(*found), torchvision_nms(*found))


@pytest.mark.slow
@settings(max_examples=250)
@given(detections(dims=2, most=60))
def test_agrees_with_torchvision_often(found: tuple[Tensor, Tensor, float]) -> None:
    assert torch.equal(nms(*found), torchvision_nms(*found))


@pytest.mark.any_implementation
@settings(max_examples=EXAMPLES)
@given(detections(dims=3, most=15))
def test_agrees_with_reference_in_3d(found: tuple[Tensor, Tensor, float]) -> None:
    assert torch.equal(nms(*found), reference.nms(*found))


@pytest.mark.slow
@settings(max_examples=100)
@given(detections(dims=3, most=15))
def test_agrees_with_reference_in_3d_often(found: tuple[Tensor, Tensor, float]) -> None:
    assert torch.equal(nms(*found), reference.nms(*found))


@settings(max_examples=20)
@given(detections(dims=2, most=40))
def test_one_slice_in_3d_equals_2d(found: tuple[Tensor, Tensor, float]) -> None:
    boxes, scores, threshold = found
    none, one = torch.zeros(len(boxes), 1), torch.ones(len(boxes), 1)
    stacked = torch.cat([none, boxes[:, :2], one, boxes[:, 2:]], 1)
    assert torch.equal(nms(stacked, scores, threshold), nms(boxes, scores, threshold))


def crowd(count: int, dims: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Many boxes around few objects, with scores in steps of 1 %: long chains of suppression and many ties."""
    draw = torch.Generator().manual_seed(count)
    centre = (torch.rand(40, dims, generator=draw) * 400)[torch.randint(0, 40, (count,), generator=draw)]
    centre = centre + torch.randn(count, dims, generator=draw) * 8
    half = 10 + 20 * torch.rand(count, dims, generator=draw)
    scores = torch.randint(0, 100, (count,), generator=draw) / 100
    return torch.cat([centre - half, centre + half], 1).to(device), scores.to(device)


@pytest.mark.parametrize("count", [255, 256, 257, 512, 3000])
def test_many_boxes_across_blocks(count: int, device: torch.device) -> None:
    boxes, scores = crowd(count, 2, device)
    for threshold in (0.1, 0.5, 0.9):
        expected = torchvision_nms(boxes.cpu(), scores.cpu(), threshold)
        assert torch.equal(nms(boxes, scores, threshold).cpu(), expected)


def test_small_blocks_and_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = crowd(100, 3)
    expected = nms(boxes, scores, 0.3)
    monkeypatch.setattr(nms_portable, "BLOCK", 7)
    monkeypatch.setattr(nms_portable, "TILE_ROWS", 2)
    assert torch.equal(nms(boxes, scores, 0.3), expected)
    assert torch.equal(expected, reference.nms(boxes, scores, 0.3))


@pytest.mark.any_implementation
def test_a_box_that_is_struck_out_strikes_out_nothing() -> None:
    # A chain: each box overlaps only its neighbours. Greedy keeps every other one; striking by all would keep one.
    low = torch.arange(9.0) * 4
    boxes = torch.stack([torch.zeros(9), low, torch.ones(9), low + 10], 1)  # neighbours: 6 / 14, next but one: 2 / 18
    assert nms(boxes, 1 - torch.arange(9.0) / 10, 0.3).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.any_implementation
def test_equal_scores_keep_the_order_of_the_indices() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [50, 50, 54, 54], [0, 0, 4, 4], [20, 20, 24, 24]])
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5, 0.9]), 0.5).tolist() == [3, 0, 1]


@pytest.mark.any_implementation
@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [0, 1]), (0.49999, [0])])
def test_iou_equal_to_the_threshold_is_no_overlap(threshold: float, kept: list[int]) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), threshold).tolist() == kept


@pytest.mark.any_implementation
def test_threshold_that_float32_cannot_hold() -> None:
    # The IoU is 1 / 10, which in float32 is a little more than the float64 0.1: torchvision strikes the second out.
    boxes = torch.tensor([[0.0, 0, 1, 10], [0, 0, 1, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.1).tolist() == torchvision_nms(boxes, scores, 0.1).tolist() == [0]


@pytest.mark.any_implementation
def test_boxes_without_extent_never_overlap() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1]] * 3)
    assert nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.0).tolist() == [1, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_boxes_of_other_types_are_compared_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = crowd(400, 2)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert torch.equal(nms(boxes, scores, 0.5), torchvision_nms(boxes.float(), scores.float(), 0.5))


def test_autocast_changes_nothing() -> None:
    boxes, scores = crowd(600, 3)
    expected = nms(boxes, scores, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nms(boxes, scores, 0.5), expected)


def test_non_contiguous_input() -> None:
    boxes, scores = crowd(300, 2)
    assert torch.equal(nms(boxes.T.contiguous().T, scores.repeat_interleave(2)[::2], 0.5), nms(boxes, scores, 0.5))


@pytest.mark.parametrize("dims", [2, 3])
def test_no_boxes(dims: int) -> None:
    found = nms(torch.zeros(0, 2 * dims), torch.zeros(0), 0.5)
    assert found.shape == (0,)
    assert found.dtype == torch.int64
    assert batched_nms(torch.zeros(0, 2 * dims), torch.zeros(0), torch.zeros(0).long(), 0.5).shape == (0,)


@pytest.mark.parametrize("dims", [2, 3])
def test_classes_do_not_see_one_another(dims: int, device: torch.device) -> None:
    boxes, scores = crowd(500, dims, device)
    classes = torch.arange(500, device=device) % 7 - 2
    found = batched_nms(boxes, scores, classes, 0.4)
    for label in range(-2, 5):
        own = (classes == label).nonzero()[:, 0]
        assert torch.equal(found[classes[found] == label], own[nms(boxes[own], scores[own], 0.4)])
    order = [(-float(scores[i]), int(i)) for i in found]
    assert order == sorted(order), "by falling score, ties by index, across classes"


@pytest.mark.any_implementation
def test_classes_agree_with_reference() -> None:
    boxes, scores = crowd(60, 3)
    classes = torch.arange(60) % 3
    assert torch.equal(batched_nms(boxes, scores, classes, 0.2), reference.batched_nms(boxes, scores, classes, 0.2))


@pytest.mark.any_implementation
def test_far_away_boxes_of_many_classes_are_not_rounded() -> None:
    # A coordinate offset of class x 1e7 would swallow these boxes' extents.
    boxes = torch.tensor([[1e6, 1e6, 1e6 + 1, 1e6 + 1], [1e6, 1e6, 1e6 + 1, 1e6 + 0.5]]).repeat(2, 1)
    found = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 9, 9]), 0.75)
    assert found.tolist() == [0, 1, 2, 3]


@pytest.mark.any_implementation
def test_bad_rows_are_never_kept_where_values_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "values_are_checked", lambda device: False)
    boxes = torch.tensor([[0.0, 0, 2, 2], [float("nan"), 0, 2, 2], [3, 3, 1, 1], [0, 0, 2, 2], [5, 5, 6, 6]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.7, float("nan")])
    assert nms(boxes, scores, 0.5).tolist() == [3]
    assert batched_nms(boxes, scores, torch.arange(5), 0.5).tolist() == [3, 0]


@pytest.mark.any_implementation
def test_words_of_32_boxes_do_not_show() -> None:
    boxes, scores = crowd(70, 2)
    assert torch.equal(nms(boxes, scores, 0.3), torchvision_nms(boxes, scores, 0.3))

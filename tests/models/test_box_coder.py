"""Box deltas, clipping and overlap: by hand, as properties, and against torchvision in 2D."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder as OracleCoder
from torchvision.ops import box_iou as oracle_iou

from medmaskrcnn.models.box_coder import BoxCoder, box_iou, clip_boxes

XY = [1, 0, 3, 2]  # our order of a box's or a delta's values to torchvision's and back
ROUND_TRIP = 1e-3  # voxels: float32 of coordinates up to some hundred, through log and exp


def random_boxes(count: int, dims: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((count, dims), generator=generator) * 100
    return torch.cat([low, low + 1 + torch.rand((count, dims), generator=generator) * 50], dim=1)


def test_worked_by_hand() -> None:
    reference = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[5.0, 0.0, 25.0, 20.0]])  # centre moves by one edge along H, which doubles
    deltas = BoxCoder(centre_weight=10, size_weight=5).encode(box, reference)
    torch.testing.assert_close(deltas, torch.tensor([[10.0, 0.0, 5 * math.log(2), 0.0]]))


@given(dims=st.sampled_from([2, 3]), seed=st.integers(0, 1000), weights=st.sampled_from([(1.0, 1.0), (10.0, 5.0)]))
def test_round_trip(dims: int, seed: int, weights: tuple[float, float]) -> None:
    boxes, references = random_boxes(8, dims, seed), random_boxes(8, dims, seed + 1)
    coder = BoxCoder(*weights)
    torch.testing.assert_close(
        coder.decode(coder.encode(boxes, references), references), boxes, atol=ROUND_TRIP, rtol=0
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0), (10.0, 5.0)])
def test_torchvision_as_oracle(weights: tuple[float, float]) -> None:
    coder, oracle = BoxCoder(*weights), OracleCoder((weights[0],) * 2 + (weights[1],) * 2)
    boxes, references = random_boxes(20, 2), random_boxes(20, 2, seed=1)
    encoded = oracle.encode_single(boxes[:, XY], references[:, XY])
    torch.testing.assert_close(coder.encode(boxes, references)[:, XY], encoded, atol=1e-5, rtol=1e-5)
    deltas = torch.randn((20, 4), generator=torch.Generator().manual_seed(2)) * 3
    decoded = oracle.decode_single(deltas[:, XY], references[:, XY])
    torch.testing.assert_close(coder.decode(deltas, references)[:, XY], decoded, atol=1e-4, rtol=1e-5)


def test_growth_is_limited() -> None:
    box = BoxCoder().decode(torch.tensor([[0.0, 0.0, 500.0, 0.0]]), torch.tensor([[0.0, 0.0, 16.0, 8.0]]))
    torch.testing.assert_close(box, torch.tensor([[-492.0, 0.0, 508.0, 8.0]]))  # 16 voxels grow to 1,000, not more


def test_one_box_per_class_from_one_reference() -> None:
    deltas = torch.randn((5, 3, 6), generator=torch.Generator().manual_seed(0))
    references = random_boxes(5, 3)
    boxes = BoxCoder().decode(deltas, references[:, None])
    assert boxes.shape == (5, 3, 6)
    torch.testing.assert_close(boxes[:, 2], BoxCoder().decode(deltas[:, 2], references))


def test_boxes_without_extent_give_finite_deltas() -> None:
    flat = torch.tensor([[3.0, 3.0, 3.0, 9.0]])
    for boxes, references in ((flat, random_boxes(1, 2)), (random_boxes(1, 2), flat), (flat, flat)):
        assert BoxCoder().encode(boxes, references).isfinite().all()


def test_no_boxes() -> None:
    none = torch.zeros((0, 6))
    assert BoxCoder().encode(none, none).shape == (0, 6)
    assert BoxCoder().decode(none, none).shape == (0, 6)
    assert clip_boxes(none, (4, 5, 6)).shape == (0, 6)


def test_half_precision_is_decoded_in_float32() -> None:
    boxes = BoxCoder().decode(torch.zeros((1, 4), dtype=torch.bfloat16), torch.tensor([[0.0, 0.0, 1001.0, 3.0]]))
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[0.0, 0.0, 1001.0, 3.0]]  # 1,001 has no bfloat16


def test_clipping() -> None:
    boxes = torch.tensor([[-2.0, 3.0, 4.0, 99.0], [11.0, 1.0, 12.0, 2.0]])
    assert clip_boxes(boxes, (10, 20)).tolist() == [[0, 3, 4, 20], [10, 1, 10, 2]]


def test_overlap_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 0, 2, 2, 2]])
    b = torch.tensor([[0.0, 0, 0, 2, 2, 2], [1, 0, 0, 3, 2, 2], [2, 0, 0, 4, 2, 2], [1, 1, 1, 2, 2, 2]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1.0, 4 / 12, 0.0, 1 / 8]]))


def test_overlap_with_torchvision_as_oracle() -> None:
    a, b = random_boxes(15, 2), random_boxes(25, 2, seed=1)
    torch.testing.assert_close(box_iou(a, b), oracle_iou(a[:, XY], b[:, XY]))
    assert box_iou(a[:0], b).shape == (0, 25)
    assert box_iou(a, b[:0]).shape == (15, 0)


def test_overlap_of_empty_boxes_is_none() -> None:
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert box_iou(empty, empty).tolist() == [[0.0]]


def test_overlap_is_that_of_one_slice_in_3d() -> None:
    flat, thick = random_boxes(10, 2), random_boxes(10, 2, seed=1)
    lift = lambda b: torch.cat([torch.zeros(10, 1), b[:, :2], torch.ones(10, 1), b[:, 2:]], dim=1)  # noqa: E731
    torch.testing.assert_close(box_iou(lift(flat), lift(thick)), box_iou(flat, thick))

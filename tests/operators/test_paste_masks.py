"""Mask pasting: where a mask cell lies in the image, by pencil and against the voxel-by-voxel reference."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn_kernels import mask_windows, paste_masks, reference

EXAMPLES = 10 if os.environ.get("TRITON_INTERPRET") else 30
TOLERANCE = 1e-5  # float32 positions of voxels up to some hundred


def test_mask_of_the_boxs_own_resolution_is_copied() -> None:
    mask = torch.rand(1, 3, 3)
    crop = paste_masks(mask, torch.tensor([[2.0, 5, 5, 8]]), torch.tensor([[2, 5, 5, 8]]))[0]
    torch.testing.assert_close(crop, mask[0], atol=TOLERANCE, rtol=0)


@pytest.mark.any_implementation
def test_half_as_many_cells_by_hand() -> None:
    # Four voxels over two cells 0 and 1: centres of cells at 1 and 3, voxel centres at 0.5, 1.5, 2.5, 3.5.
    mask = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    crop = paste_masks(mask, torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[1, 0, 2, 4]]))[0]
    torch.testing.assert_close(crop, torch.tensor([[0.0, 0.25, 0.75, 1.0]]))


@pytest.mark.any_implementation
def test_voxels_whose_centre_lies_outside_the_box_are_zero() -> None:
    crop = paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.6, 1.5, 3.5, 3.4]]), torch.tensor([[0, 0, 5, 5]]))[0]
    inside = torch.zeros(5, 5)
    inside[2:3, 1:3] = 1  # rows: 2.5 alone lies in [1.6, 3.5); columns: 1.5 and 2.5 lie in [1.5, 3.4)
    assert torch.equal(crop, inside)


@pytest.mark.any_implementation
def test_a_threshold_gives_the_voxels_that_reach_it() -> None:
    masks = torch.rand(3, 4, 4)
    boxes = torch.tensor([[1.2, 0.3, 8.9, 7.7], [0.0, 2, 3, 4], [5.0, 5, 5, 5]])
    windows = mask_windows(boxes, (9, 8))
    for crop, reached in zip(
        paste_masks(masks, boxes, windows), paste_masks(masks, boxes, windows, threshold=0.5), strict=True
    ):
        assert reached.dtype == torch.bool
        assert torch.equal(reached, crop >= 0.5)


@st.composite
def instances(draw: st.DrawFn, dims: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A mask of odd shape, a box that may leave the image or have no extent, and any window near it."""
    shape = draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims))
    mask = torch.rand(1, *shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    edges = draw(st.lists(st.tuples(*[st.integers(-40, 120)] * 2), min_size=dims, max_size=dims))
    # Sixteenths: voxel centres are hit exactly, and positions within the mask are exact enough for both.
    box = [min(e) / 16 for e in edges] + [max(e) / 16 for e in edges]
    starts = draw(st.lists(st.integers(-3, 5), min_size=dims, max_size=dims))
    lengths = draw(st.lists(st.integers(0, 6), min_size=dims, max_size=dims))
    window = starts + [a + n for a, n in zip(starts, lengths, strict=True)]
    return mask, torch.tensor([box]), torch.tensor([window])


@pytest.mark.any_implementation
@settings(max_examples=EXAMPLES)
@given(st.one_of(instances(2), instances(3)))
def test_agrees_with_reference(instance: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    mask, boxes, windows = instance
    expected = reference.paste_mask(mask[0], boxes[0].tolist(), windows[0].tolist())
    torch.testing.assert_close(paste_masks(mask, boxes, windows)[0], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.any_implementation
def test_one_slice_in_3d_equals_2d() -> None:
    mask = torch.rand(1, 4, 5)
    flat = paste_masks(mask, torch.tensor([[1.2, 0.3, 8.9, 7.7]]), torch.tensor([[0, 0, 9, 8]]))[0]
    box = torch.tensor([[3.0, 1.2, 0.3, 4.0, 8.9, 7.7]])
    deep = paste_masks(mask[:, None], box, torch.tensor([[3, 0, 0, 4, 9, 8]]))[0]
    torch.testing.assert_close(deep[0], flat)


def test_several_instances_of_different_sizes(device: torch.device) -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.5, 3.5, 4.5, 5.5], [2, 2, 2, 2.9, 9, 4]], device=device)
    windows = mask_windows(boxes, (8, 8, 8))
    crops = paste_masks(torch.rand(2, 3, 3, 3, device=device), boxes, windows)
    assert [tuple(c.shape) for c in crops] == [(4, 5, 6), (1, 6, 2)]
    assert all(c.device.type == device.type for c in crops)


def test_crops_are_float32_and_ignore_autocast() -> None:
    masks, boxes, windows = (
        torch.rand(1, 7, 7).bfloat16(),
        torch.tensor([[0.3, 0.3, 30, 30]]),
        torch.tensor([[0, 0, 30, 30]]),
    )
    expected = paste_masks(masks, boxes, windows)[0]
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(paste_masks(masks, boxes, windows)[0], expected)


@pytest.mark.any_implementation
def test_no_instances() -> None:
    assert paste_masks(torch.zeros(0, 5, 5), torch.zeros(0, 4), torch.zeros(0, 4).long()) == []
    assert mask_windows(torch.zeros(0, 4), (5, 5)).shape == (0, 4)


@pytest.mark.any_implementation
def test_windows_cover_what_boxes_touch_and_end_at_the_image() -> None:
    boxes = torch.tensor([[1.0, 1.2, 3.0, 3.1], [-4, -4, 99, 0.5], [50, 50, 60, 60], [-9, 2, -3, 4], [2, 2, 2, 2]])
    found = mask_windows(boxes, (10, 20))
    assert found.tolist() == [[1, 1, 3, 4], [0, 0, 10, 1], [10, 20, 10, 20], [0, 2, 0, 4], [2, 2, 2, 2]]
    assert found.dtype == torch.int64
    assert [tuple(c.shape) for c in paste_masks(torch.ones(5, 2, 2), boxes, found)][2:] == [(0, 0), (0, 2), (0, 0)]


@pytest.mark.parametrize(
    ("probabilities", "boxes", "windows", "message"),
    [
        ((1, 5), (1, 4), [[0, 0, 1, 1]], r"probabilities must have shape \(1, M, M\), got \(1, 5\)"),
        ((2, 5, 5), (1, 4), [[0, 0, 1, 1]], r"probabilities must have shape \(1, M, M\)"),
        ((1, 5, 5, 5), (1, 4), [[0, 0, 1, 1]], r"probabilities must have shape \(1, M, M\)"),
        ((1, 0, 5), (1, 4), [[0, 0, 1, 1]], "at least one cell"),
        ((1, 5, 5), (1, 4), [[0, 0, 1]], r"windows must be integers \(1, 4\), got torch.int64 \(1, 3\)"),
        ((1, 5, 5), (1, 4), [[0, 0, 1.0, 1]], r"windows must be integers \(1, 4\), got torch.float32"),
        ((1, 5, 5), (1, 4), [[0, 2, 1, 1]], "windows row 0 is not a box: its maximum lies below its minimum"),
    ],
)
def test_wrong_arguments(
    probabilities: tuple[int, ...], boxes: tuple[int, ...], windows: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paste_masks(torch.zeros(probabilities), torch.zeros(boxes), torch.tensor(windows))


def test_shape_of_another_dimension() -> None:
    with pytest.raises(ValueError, match="shape must have 2 extents for boxes of width 4"):
        mask_windows(torch.zeros(1, 4), (5, 5, 5))

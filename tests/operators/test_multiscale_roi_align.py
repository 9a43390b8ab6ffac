"""RoIAlign over a pyramid: the level each box reads, and torchvision's pooler and the reference as oracles."""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from medmaskrcnn_kernels import multiscale_roi_align, reference, roi_align
from medmaskrcnn_kernels.operators import least_areas
from medmaskrcnn_kernels.roi_align_portable import levels_of

VALUE_TOLERANCE = 1e-5
STRIDES = [4, 8, 16, 32]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pyramid(shape: tuple[int, ...], strides: list[tuple[int, ...]], channels: int = 3) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [
        torch.randn(2, channels, *(n // k for n, k in zip(shape, stride, strict=True)), generator=draw)
        for stride in strides
    ]


def level_of(boxes: Tensor, levels: list[int], *, canonical_size: float, canonical_level: int) -> Tensor:
    areas = least_areas(levels, canonical_size=canonical_size, canonical_level=canonical_level)
    return levels_of(boxes, areas) + levels[0]


def boxes_within(shape: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    size = torch.tensor(shape)
    extent = torch.rand(count, len(shape), generator=draw) ** 2 * size
    low = torch.rand(count, len(shape), generator=draw) * (size - extent)
    return torch.cat([low, low + extent], 1), torch.randint(0, 2, (count,), generator=draw)


@pytest.mark.parametrize(
    ("extent", "level"),
    [
        (224.0, 4),  # FPN: a box of ImageNet's size reads P4
        (223.0, 3),
        (112.0, 3),
        (111.0, 2),
        (448.0, 5),
        (1.0, 2),  # clamped to the finest
        (5000.0, 5),  # clamped to the coarsest
        (0.0, 2),
    ],
)
def test_level_of_a_box(extent: float, level: int) -> None:
    boxes = torch.tensor([[10.0, 20.0, 10 + extent, 20 + extent], [10, 20, 10 + extent / 2, 20 + 2 * extent]])
    found = level_of(boxes, [2, 3, 4, 5], canonical_size=224, canonical_level=4)
    assert found.tolist() == [level, level]


def test_level_in_3d_is_that_of_the_last_two_axes() -> None:
    boxes = torch.tensor([[0.0, 10, 20, 7, 234, 244], [0, 10, 20, 900, 122, 132]])
    found = level_of(boxes, [2, 3, 4, 5], canonical_size=224, canonical_level=4)
    assert found.tolist() == [4, 3]


def test_smaller_canonical_size_moves_boxes_to_coarser_maps() -> None:
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0]])
    found = [int(level_of(boxes, [2, 3, 4, 5], canonical_size=c, canonical_level=4)) for c in (224, 60, 30)]
    assert found == [2, 4, 5]


def test_agrees_with_torchvision() -> None:
    shape = (256, 320)
    maps = pyramid(shape, [(s, s) for s in STRIDES])
    boxes, index = boxes_within(shape, 100)
    pooler = MultiScaleRoIAlign([str(s) for s in STRIDES], output_size=7, sampling_ratio=2)
    per_image = [boxes[index == i][:, [1, 0, 3, 2]] for i in range(2)]
    named = OrderedDict((str(s), m.clone().requires_grad_()) for s, m in zip(STRIDES, maps, strict=True))
    expected = pooler(named, per_image, [shape] * 2)
    order = torch.cat([(index == i).nonzero()[:, 0] for i in range(2)])
    ours = [m.clone().requires_grad_() for m in maps]
    found = multiscale_roi_align(ours, boxes[order], index[order], output_size=7, strides=STRIDES, aligned=False)
    torch.testing.assert_close(found, expected, atol=VALUE_TOLERANCE, rtol=0)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    expected.backward(pull)
    found.backward(pull)
    for own, theirs in zip(ours, named.values(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strides", [[(4, 4, 4), (8, 8, 8)], [(1, 4, 4), (2, 8, 8)], [(2, 8, 4), (2, 8, 8)]])
def test_agrees_with_reference_in_3d(strides: list[tuple[int, ...]]) -> None:
    shape = (16, 32, 32)
    maps = pyramid(shape, strides, channels=2)
    boxes, index = boxes_within(shape, 6)
    settings = {"output_size": (2, 2, 3), "strides": strides, "canonical_size": 14, "canonical_level": 3}
    found = multiscale_roi_align(maps, boxes, index, **settings)
    expected = reference.multiscale_roi_align(maps, boxes, index, **settings)
    torch.testing.assert_close(found, expected, atol=VALUE_TOLERANCE, rtol=0)
    level = level_of(boxes, [2, 3], canonical_size=14, canonical_level=3) - 2
    assert 0 < int(level.sum()) < len(level), "the drawn boxes must read both maps"


def test_one_map_equals_roi_align(device: torch.device) -> None:
    maps = [m.to(device) for m in pyramid((64, 64), [(8, 8)])]
    boxes, index = (t.to(device) for t in boxes_within((64, 64), 20))
    found = multiscale_roi_align(maps, boxes, index, output_size=(3, 5), strides=[8])
    assert torch.equal(found, roi_align(maps[0], boxes, index, output_size=(3, 5), spatial_scale=1 / 8))


def test_a_map_that_no_box_reads_gets_a_zero_gradient() -> None:
    maps = [m.requires_grad_() for m in pyramid((64, 64), [(4, 4), (8, 8)])]
    boxes = torch.tensor([[3.0, 3.0, 20.0, 20.0]])
    multiscale_roi_align(maps, boxes, torch.tensor([1]), output_size=2, strides=[4, 8]).sum().backward()
    assert maps[0].grad is not None
    assert maps[1].grad is not None
    # Every sample lies inside the map: each of the 4 bins spreads a weight of 1 in each of the 3 channels.
    assert float(maps[0].grad.sum()) == pytest.approx(12.0)
    assert not maps[1].grad.any()


def test_no_boxes() -> None:
    maps = pyramid((64, 64), [(4, 4), (8, 8)])
    found = multiscale_roi_align(maps, torch.zeros(0, 4), torch.zeros(0).long(), output_size=7, strides=[4, 8])
    assert found.shape == (0, 3, 7, 7)


@pytest.mark.parametrize(
    ("strides", "shapes", "message"),
    [
        ([4], [(2, 1, 8, 8)] * 2, "lists of one length, got 2 and 1"),
        ([], [], "lists of one length, got 0 and 0"),
        ([4, 12], [(2, 1, 8, 8)] * 2, "powers of 2, each twice the one before"),
        ([4, 16], [(2, 1, 8, 8)] * 2, "powers of 2, each twice the one before"),
        ([4, 8], [(2, 1, 8, 8), (2, 3, 4, 4)], r"map 1 has \(2, 3, 4, 4\)"),
        ([4, 8], [(2, 1, 8, 8), (2, 1, 4, 4, 4)], r"map 1 has \(2, 1, 4, 4, 4\)"),
        ([(4, 4, 4), 8], [(2, 1, 8, 8), (2, 1, 4, 4)], r"strides must be one positive number or 2 of them"),
        ([0, 8], [(2, 1, 8, 8), (2, 1, 4, 4)], r"strides must be one positive number"),
    ],
)
def test_maps_that_form_no_pyramid(strides: list[int], shapes: list[tuple[int, ...]], message: str) -> None:
    maps = [torch.zeros(s) for s in shapes]
    with pytest.raises(ValueError, match=message):
        multiscale_roi_align(maps, torch.zeros(1, 4), torch.zeros(1).long(), output_size=7, strides=strides)


def test_level_steps_are_those_of_the_reference() -> None:
    # sqrt(h w) a hair under and over a step: the 1e-6 of the formula lifts what rounding let fall.
    for extent, level in ((224.0, 1), (224 * (1 - 1e-4), 0), (224 * (1 + 1e-4), 1), (sqrt(2) * 224, 1)):
        boxes = torch.tensor([[0.0, 0.0, extent, extent]])
        assert int(level_of(boxes, [3, 4], canonical_size=224, canonical_level=4)) == 3 + level


@pytest.mark.any_implementation
@pytest.mark.parametrize("strides", [[(4, 4), (8, 8)], [(1, 4, 4), (2, 8, 8)]])
def test_small_pyramid_agrees_with_reference(strides: list[tuple[int, ...]]) -> None:
    dims = len(strides[0])
    maps = [m.requires_grad_() for m in pyramid((4, 16, 16)[-dims:], strides, channels=2)]
    boxes, index = boxes_within((4, 16, 16)[-dims:], 5)
    settings = {"output_size": (2, 1, 3)[-dims:], "strides": strides, "canonical_size": 6, "canonical_level": 3}
    found = multiscale_roi_align([m.to(DEVICE) for m in maps], boxes.to(DEVICE), index.to(DEVICE), **settings).cpu()
    expected = reference.multiscale_roi_align(maps, boxes, index, **settings)
    torch.testing.assert_close(found, expected, atol=VALUE_TOLERANCE, rtol=0)
    gradients = torch.autograd.grad(found.square().sum(), maps)
    for own, theirs in zip(gradients, torch.autograd.grad(expected.square().sum(), maps), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-4)
    level = level_of(boxes, [2, 3], canonical_size=6, canonical_level=3) - 2
    assert 0 < int(level.sum()) < len(level), "the drawn boxes must read both maps"

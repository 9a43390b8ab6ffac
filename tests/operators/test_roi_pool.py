"""Fast R-CNN's max pooling: torchvision in 2D, one slice in 3D, and a pencil."""

from __future__ import annotations

import pytest
import torch
import torchvision

from medmaskrcnn_kernels import roi_pool


def test_by_hand_in_3d() -> None:
    features = torch.arange(27.0).view(1, 1, 3, 3, 3)
    # Corners round to cells 0..1 on each axis, both ends included: two bins of one cell each.
    pooled = roi_pool(
        features, torch.tensor([[0.4, 0, 0, 1.4, 1, 1]]), torch.tensor([0]), output_size=2, spatial_scale=1
    )
    assert pooled.flatten().tolist() == [0, 1, 3, 4, 9, 10, 12, 13]


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.3])
@pytest.mark.parametrize("bins", [(1, 1), (3, 2), (7, 7)])
def test_agrees_with_torchvision(bins: tuple[int, int], scale: float) -> None:
    draw = torch.Generator().manual_seed(2)
    low = torch.rand(20, 2, generator=draw) * 60 - 15
    boxes = torch.cat([low, low + torch.rand(20, 2, generator=draw) * 50], 1)
    boxes[:4] = torch.tensor([[2.0, 2, 10, 10], [-2, -2, 6, 6], [0.5, 1.5, 2.5, 3.5], [90, 90, 99, 99]])
    index = torch.randint(0, 2, (20,), generator=draw)
    features = torch.randn(2, 3, 13, 9, generator=draw)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    rois = torch.cat([index[:, None].float(), boxes[:, [1, 0, 3, 2]]], 1)
    expected = torchvision.ops.roi_pool(theirs, rois, bins, scale)
    found = roi_pool(ours, boxes, index, output_size=bins, spatial_scale=scale)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    pull = torch.randn(expected.shape, generator=draw)
    expected.backward(pull)
    found.backward(pull)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_one_slice_in_3d_equals_2d() -> None:
    features, boxes = torch.randn(1, 2, 8, 8), torch.tensor([[1.0, 2, 6, 7]])
    deep = torch.tensor([[0.0, 1, 2, 0, 6, 7]])
    index = torch.tensor([0])
    flat = roi_pool(features, boxes, index, output_size=3, spatial_scale=1.0)
    pooled = roi_pool(features[:, :, None], deep, index, output_size=(1, 3, 3), spatial_scale=1.0)
    assert torch.equal(pooled[:, :, 0], flat)


def test_no_boxes() -> None:
    pooled = roi_pool(
        torch.zeros(1, 3, 4, 4, 4), torch.zeros(0, 6), torch.zeros(0).long(), output_size=2, spatial_scale=1
    )
    assert pooled.shape == (0, 3, 2, 2, 2)

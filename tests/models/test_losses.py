"""The terms of the loss: values worked by hand, and torchvision's own losses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from medmaskrcnn.models.losses import box_losses, mask_dice_loss, mask_loss, mask_targets, rpn_losses

LOG2 = math.log(2.0)


def test_rpn_losses_by_hand() -> None:
    # two anchors undecided: log 2 each. One delta off by 1/18, in the square part of smooth L1 with beta 1/9:
    # 0.5 * (1/18)^2 / (1/9) = 1/72; one off by 1, in the linear part: 1 - 1/18. Both divided by the two anchors.
    wanted = torch.zeros((1, 4))
    objectness, box = rpn_losses(
        torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([[1 / 18, 1.0, 0.0, 0.0]]), wanted
    )
    assert float(objectness.mean) == pytest.approx(LOG2)
    assert float(box.mean) == pytest.approx((1 / 72 + 1 - 1 / 18) / 2)


def test_box_losses_by_hand() -> None:
    classification, box = box_losses(
        torch.zeros((3, 4)), torch.tensor([1, 0, 3]), torch.ones((2, 6)), torch.ones((2, 6))
    )
    assert float(classification.mean) == pytest.approx(math.log(4.0))
    assert float(box.mean) == 0.0


def test_mask_loss_by_hand() -> None:
    targets = torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])
    assert float(mask_loss(torch.zeros((1, 2, 2)), targets).mean) == pytest.approx(LOG2)
    assert float(mask_loss(torch.full((1, 2, 2), 20.0), torch.ones((1, 2, 2))).mean) == pytest.approx(0.0, abs=1e-6)


def test_mask_dice_loss_by_hand() -> None:
    right = torch.tensor([[[9.0, -9.0], [-9.0, 9.0]]]) * 10
    truth = (right > 0).float()
    assert float(mask_dice_loss(right, truth).mean) == pytest.approx(0.0, abs=1e-6)
    assert float(mask_dice_loss(right, 1 - truth).mean) == pytest.approx(1 - 1 / 5)  # nothing shared, 2 + 2 bins


def test_focal_loss_by_hand() -> None:
    # p of the truth is 1/2 for the first, almost 1 for the second: (1 - 1/2)^2 log 2 is what is left
    each = box_losses(
        torch.tensor([[0.0, 0.0], [0.0, 30.0]]), torch.tensor([1, 1]), torch.zeros(0, 4), torch.zeros(0, 4), focal=2.0
    )
    assert float(each[0].total) == pytest.approx(LOG2 / 4)


def test_torchvision_as_oracle_for_the_box_head() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, deltas = torch.randn((12, 4), generator=generator), torch.randn((12, 16), generator=generator)
    classes = torch.tensor([1, 2, 3, 1, 2] + [0] * 7)
    wanted = torch.randn((12, 4), generator=generator)
    expected = fastrcnn_loss(logits, deltas, [classes], [wanted])
    positive = torch.nonzero(classes > 0).flatten()
    own = deltas.reshape(12, 4, 4)[positive, classes[positive]]
    torch.testing.assert_close(tuple(t.mean for t in box_losses(logits, classes, own, wanted[positive])), expected)


def test_torchvision_as_oracle_for_the_rpn() -> None:
    generator = torch.Generator().manual_seed(0)
    objectness, deltas = torch.randn((30, 1), generator=generator), torch.randn((30, 4), generator=generator)
    labels = torch.cat([torch.ones(5), torch.zeros(25)])
    wanted = torch.randn((30, 4), generator=generator)
    everything = [torch.tensor([1] * 5 + [0] * 25)], [torch.tensor([0] * 5 + [1] * 25)]
    sampler = SimpleNamespace(fg_bg_sampler=lambda _labels: everything)
    expected = RegionProposalNetwork.compute_loss(sampler, objectness, deltas, [labels], [wanted])
    ours = rpn_losses(objectness[:, 0], labels, deltas[:5], wanted[:5])
    torch.testing.assert_close(tuple(t.mean for t in ours), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_sampled_costs_nothing(dims: int) -> None:
    none = torch.zeros((0, 2 * dims), requires_grad=True)
    empty = torch.zeros(0, requires_grad=True)
    terms = [*rpn_losses(empty, torch.zeros(0), none, torch.zeros_like(none))]
    logits = torch.zeros((0, 3), requires_grad=True)
    terms += box_losses(logits, torch.zeros(0, dtype=torch.int64), none, torch.zeros_like(none))
    masks = torch.zeros((0, *(4,) * dims), requires_grad=True)
    terms.append(mask_loss(masks, torch.zeros_like(masks)))
    terms.append(mask_dice_loss(masks, torch.zeros_like(masks)))
    assert [t.mean.item() for t in terms] == [0.0] * 6
    torch.stack([t.mean for t in terms]).sum().backward()
    assert masks.grad is not None


def half_filled(dims: int) -> Tensor:
    """Two objects on 8 voxels a side: one fills the low half of the last axis, one fills all by a quarter."""
    masks = torch.zeros((2, *(8,) * dims))
    masks[0, ..., :4] = 1.0
    masks[1] = 0.25
    return masks


@pytest.mark.parametrize("dims", [2, 3])
def test_mask_targets_by_hand(dims: int) -> None:
    box = torch.tensor([[0.0] * dims + [8.0] * dims])
    targets = mask_targets(half_filled(dims), box.repeat(2, 1), torch.tensor([0, 1]), 4)
    assert targets.shape == (2, *(4,) * dims)
    # bins of two voxels, sampled at 0.5 and 1.5 voxels: at voxel centres
    torch.testing.assert_close(targets[0], torch.tensor([1.0, 1.0, 0.0, 0.0]).expand((4,) * dims))
    torch.testing.assert_close(targets[1], torch.full((4,) * dims, 0.25))


def test_mask_targets_keep_a_boundary_within_a_voxel() -> None:
    masks = torch.zeros((1, 4, 4))
    masks[0, :, 0], masks[0, :, 1] = 1.0, 0.4  # the object ends 0.4 of the way through column 1
    targets = mask_targets(masks, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0]), 2)
    torch.testing.assert_close(targets[0], torch.tensor([[0.7, 0.0], [0.7, 0.0]]))


@pytest.mark.parametrize("dims", [2, 3])
def test_mask_targets_are_of_the_owner_in_its_box(dims: int) -> None:
    masks = half_filled(dims)
    boxes = torch.tensor([[0.0] * (dims - 1) + [4.0] + [8.0] * dims, [0.0] * dims + [8.0] * (dims - 1) + [4.0]])
    targets = mask_targets(masks, boxes, torch.tensor([0, 0]), 2)
    assert targets[0].max() < 1.0 and targets[0].min() == 0.0
    assert targets[1].min() > 0.0 and targets[1].max() == 1.0
    torch.testing.assert_close(mask_targets(masks, boxes, torch.tensor([1, 1]), 2).amax(), torch.tensor(0.25))


@pytest.mark.parametrize("dims", [2, 3])
def test_bytes_count_255_to_the_voxel(dims: int) -> None:
    box = torch.tensor([[1.0] * dims + [7.0] * dims])
    inside = mask_targets((half_filled(dims) * 255).to(torch.uint8), box.repeat(2, 1), torch.tensor([0, 1]), 4)
    as_floats = mask_targets(half_filled(dims), box.repeat(2, 1), torch.tensor([0, 1]), 4)
    torch.testing.assert_close(inside, as_floats, atol=1 / 255, rtol=0)  # a quarter of 255 is no whole number
    yes = mask_targets(half_filled(dims).bool(), box, torch.tensor([0]), 4)
    torch.testing.assert_close(yes, as_floats[:1])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("objects", [0, 2])
def test_mask_targets_of_no_region(dims: int, objects: int) -> None:
    masks = torch.zeros((objects, *(8,) * dims), dtype=torch.uint8)
    targets = mask_targets(masks, torch.zeros((0, 2 * dims)), torch.zeros(0, dtype=torch.int64), 4)
    assert targets.shape == (0, *(4,) * dims)
    assert targets.dtype == torch.float32

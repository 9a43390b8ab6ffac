"""Ignored objects in training: neither positives nor negatives, and no part of other objects' masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.ignored import set_ignored_aside, share_in_boxes, share_in_voxels
from medmaskrcnn.models.losses import mask_dice_loss, mask_loss
from medmaskrcnn.models.matching import BACKGROUND, IGNORED, match_by_iou
from medmaskrcnn.models.objective import Targets, mask_known, mask_terms, rpn_terms, select_training_samples
from medmaskrcnn.settings import LossSettings, ModelSettings, RoISettings, RPNSettings

Tiny = Callable[..., ModelSettings]


def filled(shape: tuple[int, ...], *boxes: list[float]) -> Tensor:
    voxels = torch.zeros(shape, dtype=torch.bool)
    for box in boxes:
        low, high = box[: len(shape)], box[len(shape) :]
        voxels[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True
    return voxels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 3]))
def test_share_in_voxels_is_the_mean_over_the_box(seed: int, dims: int) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (7, 11, 9)[:dims]
    voxels = torch.rand(shape, generator=random) < 0.4
    low = torch.stack([torch.randint(0, n, (12,), generator=random) for n in shape], dim=1)
    high = low + torch.randint(1, 6, low.shape, generator=random)
    found = share_in_voxels(torch.cat([low, high], dim=1).float(), voxels)
    for share, a, b in zip(found.tolist(), low.tolist(), high.tolist(), strict=True):
        window = voxels[tuple(slice(x, y) for x, y in zip(a, b, strict=True))]
        assert share == pytest.approx(float(window.float().mean()))


def test_share_in_voxels_of_boxes_beyond_the_image_and_within_a_voxel() -> None:
    voxels = filled((4, 4), [0, 0, 4, 2])
    boxes = torch.tensor([[-4.0, -4, 4, 4], [9.0, 9, 12, 12], [1.1, 1.1, 1.2, 1.2], [1.1, 3.1, 1.2, 3.2]])
    assert share_in_voxels(boxes, voxels).tolist() == [0.5, 0.0, 1.0, 0.0]


def test_share_in_boxes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 8, 8], [20.0, 20, 24, 24]])
    assert share_in_boxes(boxes, torch.tensor([[0.0, 0, 4, 2], [0.0, 0, 4, 4]])).tolist() == [1.0, 0.25, 0.0]


@pytest.mark.parametrize("with_masks", [True, False])
def test_background_in_an_ignored_object_is_set_aside(with_masks: bool) -> None:
    real, ignored = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 20, 40, 60]])
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # the real object
            [5.0, 25, 15, 35],  # inside the ignored one, far smaller
            [0.0, 18, 38, 58],  # about the ignored one
            [40.0, 0, 60, 20],  # elsewhere
            [0.0, 55, 20, 75],  # reaches into it by a quarter
        ]
    )

    def match(objects: Tensor) -> Tensor:
        return match_by_iou(objects, boxes, foreground=0.5, background=0.5, allow_low_quality_matches=False)

    voxels = filled((80, 80), [0, 20, 40, 60]) if with_masks else None
    found = set_ignored_aside(match(real), boxes, ignored, voxels, match)
    assert found.tolist() == [0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_a_real_object_within_an_ignored_region_remains_one() -> None:
    real, whole = torch.tensor([[20.0, 20, 30, 30]]), torch.tensor([[0.0, 0, 64, 64]])
    target = Targets(real, torch.tensor([1]), None, None, whole, None)
    proposals = torch.tensor([[20.0, 20, 30, 31], [40.0, 40, 50, 50]])
    regions = select_training_samples([proposals], [target], [None], RoISettings())
    assert regions.classes.tolist() == [2, 2]  # the proposal and the object's own box; no background


def test_specks_of_an_ignored_region_do_not_set_aside_what_lies_between_them() -> None:
    """The box around the corners of an image is the whole image; its voxels are not."""
    corners = ([0, 0, 4, 4], [60, 60, 64, 64])
    target = Targets(
        torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64), None, None,
        torch.tensor([list(map(float, box)) for box in corners]), filled((64, 64), *corners),
    )  # fmt: skip
    proposals = torch.tensor([[20.0, 20, 40, 40], [0.0, 0, 4, 5]])
    regions = select_training_samples([proposals], [target], [None], RoISettings())
    assert regions.boxes[0].tolist() == [[20.0, 20.0, 40.0, 40.0]]


@pytest.mark.parametrize("matcher", ["iou", "atss"])
def test_the_rpn_learns_nothing_from_anchors_in_an_ignored_object(matcher: str) -> None:
    corners = torch.cartesian_prod(torch.arange(0.0, 64, 8), torch.arange(0.0, 64, 8))
    anchors = torch.cat([corners, corners + 16], dim=1)
    ignored = torch.tensor([[0.0, 0.0, 32.0, 64.0]])
    target = Targets(
        torch.tensor([[40.0, 40, 56, 56]]), torch.tensor([0]), None, None, ignored, filled((64, 64), [0, 0, 32, 64])
    )
    objectness = torch.randn((1, len(anchors), 1), requires_grad=True)
    terms = rpn_terms(
        [objectness], [torch.zeros((1, len(anchors), 4))], [anchors], [target], [None],
        per_cell=1, settings=RPNSettings(matcher=matcher), loss=LossSettings(),
    )  # fmt: skip
    terms["objectness"].total.backward()
    assert objectness.grad is not None
    gradient = objectness.grad[0, :, 0]
    inside = anchors[:, 0] < 24 + 1  # at least half of the anchor's 16 rows lie in the first 32
    assert (gradient[inside] == 0).all() and (gradient[~inside] != 0).any() and (gradient < 0).any()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_ignored_voxels_take_no_part_in_the_masks_of_objects(dims: int, as_bytes: bool) -> None:
    shape, box = (16,) * dims, [0.0] * dims + [16.0] * dims
    boxes = torch.tensor([box])
    ignored = filled(shape, [0] * dims + [16] * (dims - 1) + [4])  # the first quarter of the last axis
    mask = ignored.to(torch.uint8) * 255 if as_bytes else ignored.float()
    target = Targets(boxes, torch.tensor([0]), torch.ones((1, *shape)), None, boxes, mask)
    logits = torch.randn((1, 2, *(8,) * dims), requires_grad=True)
    terms = mask_terms(logits, [boxes], [torch.tensor([0])], [target], LossSettings(mask_dice=1.0))
    torch.stack([term.total for term in terms.values()]).sum().backward()
    assert logits.grad is not None
    own = logits.grad[0, 0]
    assert (own[..., :2] == 0).all() and (own[..., 2:] != 0).all() and (logits.grad[0, 1] == 0).all()
    known = mask_known([boxes], [target], 8)
    assert known is not None and known.shape == (1, *(8,) * dims) and not known[..., :2].any() and known[..., 2:].all()


def test_the_mean_is_over_what_is_known() -> None:
    logits = torch.tensor([[[3.0, -1.0], [0.5, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
    targets = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    known = torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]])
    found = mask_loss(logits, targets, known)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits[0], targets[0], reduction="none")
    assert float(found.total) == pytest.approx(float(each[known[0]].mean())) and found.count == 1
    dice = mask_dice_loss(logits, targets, known)
    p, t = logits[0].sigmoid()[known[0]], targets[0][known[0]]
    expected = 1 - (2 * (p * t).sum() + 1) / (p.square().sum() + t.square().sum() + 1)
    assert float(dice.total) == pytest.approx(float(expected)) and dice.count == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_learns_from_images_with_and_without_ignored_objects(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims))
    shape = (64, 96) if dims == 2 else (16, 64, 64)
    box = torch.tensor([[8.0] * dims + [14.0] * dims])
    masks = filled(shape, [8] * dims + [14] * dims)[None].float()
    plain = Targets(box, torch.tensor([0]), masks)
    some = Targets(box, torch.tensor([0]), masks, None, box + 20, filled(shape, (box[0] + 20).tolist()).float())
    only = Targets(box[:0], torch.zeros(0, dtype=torch.int64), masks[:0], None, box, masks[0])
    terms = network.losses(torch.randn((3, 1, *shape)), [plain, some, only], seeds=[1, 2, 3])
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())

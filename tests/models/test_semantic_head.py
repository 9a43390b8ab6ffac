"""The semantic head and masks that leave their box."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medmaskrcnn.inference.detection import paste_detections
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.models.semantic_head import pool_own_class, semantic_targets, semantic_term
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelSettings, RoISettings
from medmaskrcnn.settings.network import SemanticSettings
from medmaskrcnn_kernels import roi_align

SIDE = 32


def settings_of(dims: int, **changes: object) -> ModelSettings:
    strides = tuple((n,) * dims for n in (4, 8, 16, 32))
    return ModelSettings(
        spatial_dims=dims,
        class_names=("organ", "tumour"),
        backbone=BackboneSettings(name="light", light_channels=(8, 8, 16, 16), fpn_channels=16, strides=strides),
        anchors=AnchorSettings(sizes=tuple((s,) * dims for s in (8.0, 16.0, 24.0, 32.0, 48.0))),
        roi=RoISettings(box_hidden=16, mask_channels=8, mask_convs=1, mask_size=7, box_size=3, mask_margin=0.2),
        **{"semantic": SemanticSettings(channels=8), **changes},
    )


def nested(dims: int, **more: Tensor) -> Targets:
    """A tumour in an organ."""
    masks = torch.zeros((2, *(SIDE,) * dims), dtype=torch.uint8)
    masks[0][(slice(4, 28),) * dims] = 255
    masks[1][(slice(8, 16),) * dims] = 255
    boxes = torch.tensor([[4.0] * dims + [28.0] * dims, [8.0] * dims + [16.0] * dims])
    return Targets(boxes, torch.tensor([0, 1]), masks, **more)


@pytest.mark.parametrize("dims", [2, 3])
def test_targets_are_the_filled_share_of_each_cell_and_classes_may_overlap(dims: int) -> None:
    classes, truth, known = semantic_targets(nested(dims), (2, *(SIDE // 4,) * dims))
    assert truth.shape == (2, *(SIDE // 4,) * dims) and known is None and classes.tolist() == [0, 1]
    assert float(truth[0].sum()) * 4**dims == pytest.approx(24**dims)
    assert float(truth[1].sum()) * 4**dims == pytest.approx(8**dims)
    assert bool(((truth[1] > 0) <= (truth[0] > 0)).all())


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_unknown_or_ignored_has_no_gradient(dims: int) -> None:
    ignored = torch.zeros((SIDE,) * dims, dtype=torch.uint8)
    ignored[0:8] = 255
    unknown = nested(dims, annotated=torch.tensor([True, False]))
    hidden = nested(dims, ignored_boxes=torch.zeros((1, 2 * dims)), ignored_mask=ignored)
    logits = torch.randn((2, 2, *(SIDE,) * dims), requires_grad=True)
    semantic_term(logits, [unknown, hidden]).total.backward()
    slope = logits.grad
    assert not slope[0, 1].any() and slope[0, 0].all()
    assert not slope[1, :, 0:8].any() and slope[1, :, 8:].all()


def test_an_image_without_objects_has_a_finite_loss() -> None:
    empty = Targets(torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64), torch.zeros((0, SIDE, SIDE)))
    term = semantic_term(torch.zeros(1, 2, SIDE, SIDE), [empty])
    assert float(term.mean) == pytest.approx(2 * 0.6931, abs=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_each_region_is_given_its_own_class_of_its_own_image(dims: int) -> None:
    logits = torch.randn((3, 2, *(SIDE // 2,) * dims))
    boxes = [torch.tensor([[3.0] * dims + [20.0] * dims]), torch.zeros((0, 2 * dims)), nested(dims).boxes]
    labels = torch.tensor([1, 0, 1])
    pooled = pool_own_class(logits, boxes, labels, stride=(2,) * dims, bins=5)
    every, image = torch.cat(boxes), torch.tensor([0, 2, 2])
    oracle = roi_align(logits, every, image, output_size=5, spatial_scale=0.5, sampling_ratio=1)
    torch.testing.assert_close(pooled, oracle[torch.arange(3), labels])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_learns_with_it_and_its_masks_may_leave_their_boxes(dims: int) -> None:
    torch.manual_seed(0)
    network = build_model(settings_of(dims)).train()
    target, image = nested(dims), torch.zeros((1, 1, *(SIDE,) * dims))
    image[0, 0] = target.masks.float().sum(0) / 255
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    first = None
    for _ in range(60):
        losses = network.losses(image, [target], seeds=[0])
        first = first or {name: float(value.detach()) for name, value in losses.items()}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    assert float(losses["semantic"].detach()) < 0.7 * first["semantic"]
    assert float(losses["mask"].detach()) < 0.8 * first["mask"]
    network.eval()
    ((regions, probabilities),) = network.outline(image, [target.boxes], [target.labels])
    assert probabilities.shape == (2, *(14,) * dims)
    margin = 0.2 * 24
    torch.testing.assert_close(
        regions[0], torch.tensor([max(0.0, 4 - margin)] * dims + [min(SIDE, 28 + margin)] * dims)
    )


def test_the_box_is_then_that_of_the_mask() -> None:
    mask = torch.zeros((1, 10, 10))
    mask[:, 1:9, 2:8] = 1.0
    (found,) = paste_detections(
        torch.tensor([[4.0, 4.0, 6.0, 6.0]]), torch.tensor([0]), torch.ones(1), mask,
        shape=(20, 20), threshold=0.5, mask_boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
    )  # fmt: skip
    assert found.box.tolist() == [0, 1, 2, 1, 9, 8]


def test_older_settings_have_none_and_a_pyramid_is_needed() -> None:
    assert ModelSettings(class_names=("a",)).semantic is None
    with pytest.raises(ValueError, match="semantic"):
        settings_of(2, with_masks=False)

"""The mask head alone: what it draws inside a box that is given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelSettings

Tiny = Callable[..., ModelSettings]
SHAPE = {2: (64, 96), 3: (16, 64, 64)}
SAME_IMAGE = 1e-4  # a batch of two is summed in another order than one image


@pytest.mark.parametrize("dims", [2, 3])
def test_a_detection_s_own_box_gives_its_own_mask(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims)).eval()
    images = torch.randn(2, 1, *SHAPE[dims])
    found = network.detect(images)
    masks = network.outline(images, [d.boxes for d in found], [d.labels for d in found])
    for detections, (_, mask) in zip(found, masks, strict=True):
        torch.testing.assert_close(mask, detections.mask_probabilities, atol=SAME_IMAGE, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_each_class_has_a_mask_of_its_own_and_no_box_gives_none(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims)).eval()
    box = torch.tensor([[4.0] * dims + [15.0] * dims]).repeat(2, 1)
    (_, ours), (_, none) = network.outline(
        torch.randn(2, 1, *SHAPE[dims]), [box, box[:0]], [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)]
    )
    assert ours.shape == (2, *(8,) * dims) and none.shape == (0, *(8,) * dims)
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)


def test_a_model_without_a_mask_head_and_images_of_another_kind_are_refused(tiny_model: Tiny) -> None:
    box, label = [torch.zeros((0, 4))], [torch.zeros(0, dtype=torch.int64)]
    with pytest.raises(ValueError, match="needs a model with a mask head"):
        build_model(tiny_model(2, with_masks=False)).outline(torch.randn(1, 1, 64, 64), box, label)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), got \(1, 3, 64, 64\)"):
        build_model(tiny_model(2)).outline(torch.randn(1, 3, 64, 64), box, label)

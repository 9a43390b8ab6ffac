"""MONAI's tensors go into the network and its functions; what comes out is plain, and the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, get_track_meta
from network_checks import SHAPE, objects
from torch import Tensor

from medmaskrcnn.models.box_coder import BoxCoder, box_iou, clip_boxes
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.losses import mask_targets
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn.training.augment import Augmenter
from medmaskrcnn.training.plan import AugmentSettings
from medmaskrcnn.training.warp import Crop

Tiny = Callable[..., ModelSettings]


def test_functions_of_boxes_give_plain_tensors() -> None:
    boxes, others = torch.tensor([[0.0, 0, 4, 4], [2, 2, 9, 9]]), torch.tensor([[1.0, 1, 5, 5], [2, 3, 7, 9]])
    coder, masks, index = BoxCoder(10.0, 5.0), torch.rand(2, 12, 12), torch.tensor([1, 0])
    for call, tensors in (
        (box_iou, (boxes, others)),
        (coder.encode, (boxes, others)),
        (coder.decode, (torch.zeros(2, 4), boxes)),
        (lambda own: clip_boxes(own, (3, 3)), (boxes,)),
        (lambda own, theirs, matched: mask_targets(own, theirs, matched, 4), (masks, boxes, index)),
    ):
        found = call(*map(MetaTensor, tensors))  # type: ignore[operator]
        assert type(found) is Tensor
        assert torch.equal(found, call(*tensors))  # type: ignore[operator]


@pytest.mark.parametrize("dims", [2, 3])
def test_the_network_takes_them(tiny_model: Tiny, dims: int) -> None:
    network, target = build_model(tiny_model(dims)), objects(dims)
    images = torch.randn(2, 1, *SHAPE[dims])
    assert target.masks is not None
    wrapped = Targets(MetaTensor(target.boxes), MetaTensor(target.labels), MetaTensor(target.masks))
    expected = network.losses(images, [target] * 2, seeds=[1, 2])
    losses = network.losses(MetaTensor(images), [wrapped] * 2, seeds=[1, 2])
    assert {name: type(value) for name, value in losses.items()} == dict.fromkeys(expected, Tensor)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    sum(losses.values()).backward()

    network.eval()
    for found, plain in zip(network.detect(MetaTensor(images)), network.detect(images), strict=True):
        assert type(found.boxes) is type(found.scores) is type(found.mask_probabilities) is Tensor
        assert torch.equal(found.boxes, plain.boxes) and torch.equal(found.scores, plain.scores)
    outlined = network.outline(MetaTensor(images), [wrapped.boxes] * 2, [wrapped.labels] * 2)
    assert all(type(one) is Tensor for pair in outlined for one in pair)


def test_augmentation_leaves_the_setting_of_monai_alone() -> None:
    def add_noise(sample: dict[str, Tensor]) -> dict[str, Tensor]:
        assert get_track_meta()
        return {name: MetaTensor(value) for name, value in sample.items()}

    settings = AugmentSettings(patch=(1, 8, 8), gamma=0.2, rotate_degrees=10)
    augmenter = Augmenter(settings, spatial_dims=2, transform=add_noise)
    crop = Crop((2, 2), torch.full((9, 9), 255, dtype=torch.uint8))
    image, (moved,) = augmenter(torch.rand(1, 16, 16), [crop], np.random.default_rng(0), (8, 8))
    assert get_track_meta()
    assert type(image) is type(moved.values) is Tensor

"""The mean of several networks and of mirrored images: what has to be equal, and what has to be symmetric."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.averaged import AveragedRCNN, mirror_boxes
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import DetectionSettings, ModelSettings

Tiny = Callable[..., ModelSettings]

SIZES = {2: (64, 96), 3: (16, 64, 96)}


@pytest.fixture(params=[2, 3])
def networks(request: pytest.FixtureRequest, tiny_model: Tiny) -> list[MaskRCNN]:
    """Two networks of other random weights, whose candidates all pass the threshold."""
    settings = tiny_model(request.param, detection=DetectionSettings(score_thresh=0.0, detections_per_img=9))
    return [build_model(settings).eval() for _ in range(2)]


def image(network: MaskRCNN, batch: int = 2) -> Tensor:
    dims = network.settings.spatial_dims
    return torch.randn((batch, 1, *SIZES[dims]), generator=torch.Generator().manual_seed(1))


def assert_same(found: Detections, expected: Detections) -> None:
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.mask_probabilities, expected.mask_probabilities, rtol=1e-3, atol=1e-3)


def test_one_network_or_the_same_twice_is_the_network_itself(networks: list[MaskRCNN]) -> None:
    one, images = networks[0], image(networks[0])
    shapes = [tuple(images.shape[2:]), tuple(n - 3 for n in images.shape[2:])]
    expected = one.detect(images, shapes)
    for several in (AveragedRCNN([one]), AveragedRCNN([one, one])):
        for found, wanted in zip(several.detect(images, shapes), expected, strict=True):
            assert_same(found, wanted)
    boxes, labels = [d.boxes for d in expected], [d.labels for d in expected]
    for found, wanted in zip(
        AveragedRCNN([one, one]).outline(images, boxes, labels), one.outline(images, boxes, labels), strict=True
    ):
        torch.testing.assert_close(found, wanted)  # regions and masks


def test_two_networks_are_between_their_outputs(networks: list[MaskRCNN]) -> None:
    images = image(networks[0], 1)
    several = AveragedRCNN(networks)
    (found,) = several.detect(images)
    assert len(found.boxes) and several.precision == "fp32"
    ((_, mean),) = several.outline(images, [found.boxes], [found.labels])
    first, second = (network.outline(images, [found.boxes], [found.labels])[0][1] for network in networks)
    torch.testing.assert_close(mean, (first + second) / 2)
    torch.testing.assert_close(found.mask_probabilities, mean, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, second)


def test_a_mirrored_image_gives_mirrored_detections(networks: list[MaskRCNN]) -> None:
    """All views of the one are views of the other; of a single network this is not so."""
    images = image(networks[0], 1)
    axis = images.ndim - 3  # the last spatial one
    several = AveragedRCNN(networks[:1], flips=(axis,))
    assert several.mirrors == [(), (axis,)]
    size = tuple(images.shape[2:])
    (found,), (mirrored,) = several.detect(images), several.detect(images.flip(axis + 2))
    turned = Detections(
        mirror_boxes(mirrored.boxes, (axis,), size),
        mirrored.labels,
        mirrored.scores,
        mirrored.mask_probabilities.flip(axis + 1),
    )
    assert_same(found, turned)
    alone = networks[0].detect(images)[0], networks[0].detect(images.flip(axis + 2))[0]
    assert not torch.allclose(alone[0].scores, alone[1].scores, atol=1e-4)


def test_boxes_of_a_mirrored_image() -> None:
    box = torch.tensor([[1.0, 2.0, 4.0, 7.0]])
    assert mirror_boxes(box, (), (10, 20)).tolist() == box.tolist()
    assert mirror_boxes(box, (1,), (10, 20)).tolist() == [[1, 13, 4, 18]]
    assert mirror_boxes(mirror_boxes(box, (0, 1), (10, 20)), (0, 1), (10, 20)).tolist() == box.tolist()


def test_maps_of_classes_and_steps_are_those_of_the_networks(networks: list[MaskRCNN]) -> None:
    images = image(networks[0], 1)
    one, several = networks[0], AveragedRCNN([networks[0]] * 2)
    torch.testing.assert_close(several.semantic(images), one.semantic(images), rtol=1e-3, atol=1e-4)
    seen: list[str] = []
    several.detect(images, watch=lambda step, _: seen.append(step))
    assert seen == [*["pyramid", "rpn"] * 2, "proposals", *["regions", "scores"] * 2, "found"]


def test_what_is_not_finite_is_refused(networks: list[MaskRCNN]) -> None:
    with torch.no_grad():
        networks[1].box_head.classes.weight[0] = float("inf")
    with pytest.raises(MedMaskRCNNError, match="not finite"):
        AveragedRCNN(networks).detect(image(networks[0], 1))


def test_what_cannot_be_averaged(tiny_model: Tiny) -> None:
    one, other = build_model(tiny_model(2)), build_model(tiny_model(2, class_names=("spleen", "liver")))
    with pytest.raises(ValueError, match="same settings"):
        AveragedRCNN([one, other])
    with pytest.raises(ValueError, match="axes to mirror"):
        AveragedRCNN([one], flips=(2,))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        AveragedRCNN([one]).detect(torch.zeros(1, 3, 64, 64))

"""The whole network in 2D, 2.5D and 3D: shapes, empties, precision, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.box_coder import box_iou
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import BackboneSettings, DetectionSettings, LossSettings, ModelSettings, RPNSettings

Tiny = Callable[..., ModelSettings]
SHAPE = {2: (64, 96), 3: (16, 64, 64)}
TERMS = ("objectness", "rpn_box", "classification", "box", "mask")
SAME_IMAGE = 1e-4  # a batch of two is summed in another order than one image


def objects(dims: int, shape: tuple[int, ...] | None = None) -> Targets:
    """Two objects, the second of another class, with a mask that fills its box."""
    shape = shape or SHAPE[dims]
    boxes = torch.tensor([[4.0, 8, 8, 12, 28, 24], [2.0, 32, 36, 14, 52, 60]])
    boxes = boxes if dims == 3 else boxes[:, [1, 2, 4, 5]]
    masks = torch.zeros((2, *shape))
    for mask, box in zip(masks, boxes.int().tolist(), strict=True):
        mask[tuple(slice(a, b) for a, b in zip(box[:dims], box[dims:], strict=True))] = 1
    return Targets(boxes, torch.tensor([0, 1]), masks)


def nothing(dims: int) -> Targets:
    empty = torch.zeros((0, *SHAPE[dims]), dtype=torch.uint8)
    return Targets(torch.zeros((0, 2 * dims)), torch.zeros(0, dtype=torch.int64), empty)


def check_detections(found: Detections, dims: int, shape: tuple[int, ...], *, masks: bool = True) -> None:
    count = len(found.boxes)
    assert found.boxes.shape == (count, 2 * dims) and found.boxes.dtype == torch.float32
    assert found.labels.dtype == torch.int64 and set(found.labels.tolist()) <= {0, 1}
    assert (found.scores.diff() <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([*shape, *shape])).all()
    if masks:
        assert found.mask_probabilities is not None
        assert found.mask_probabilities.shape == (count, *(8,) * dims)
        assert ((found.mask_probabilities >= 0) & (found.mask_probabilities <= 1)).all()
    else:
        assert found.mask_probabilities is None


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("masks", [True, False])
def test_detecting(tiny_model: Tiny, dims: int, masks: bool) -> None:
    network = build_model(tiny_model(dims, with_masks=masks)).eval()
    whole = SHAPE[dims]
    part = (*whole[:-1], whole[-1] - 30)
    found = network.detect(torch.randn(2, 1, *whole), [whole, part])
    assert len(found) == 2 and len(found[0].boxes) == 9
    for detections, shape in zip(found, (whole, part), strict=True):
        check_detections(detections, dims, shape, masks=masks)
        assert not detections.boxes.requires_grad


def test_neighbouring_slices_are_channels(tiny_model: Tiny) -> None:
    settings = tiny_model(2, context_slices=2, image_channels=2)
    network = build_model(settings).eval()
    (found,) = network.detect(torch.randn(1, 10, 64, 96))
    check_detections(found, 2, (64, 96))
    with pytest.raises(ValueError, match=r"images must have shape \(B, 10, H, W\), got \(1, 2, 64, 96\)"):
        network.detect(torch.randn(1, 2, 64, 96))


def test_images_of_another_dimension_are_refused(tiny_model: Tiny) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, D, H, W\), got \(1, 1, 64, 64\)"):
        build_model(tiny_model(3)).detect(torch.randn(1, 1, 64, 64))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_is_its_images_one_by_one(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims)).eval()
    images = torch.randn(2, 1, *SHAPE[dims])
    for i, together in enumerate(network.detect(images)):
        (alone,) = network.detect(images[i : i + 1])
        assert torch.equal(together.labels, alone.labels)
        torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-2, rtol=0)
        torch.testing.assert_close(together.scores, alone.scores, atol=SAME_IMAGE, rtol=0)
        torch.testing.assert_close(together.mask_probabilities, alone.mask_probabilities, atol=SAME_IMAGE, rtol=0)


def test_nothing_found_is_no_error(tiny_model: Tiny) -> None:
    network = build_model(tiny_model(2, detection=DetectionSettings(score_thresh=1.0))).eval()
    (found,) = network.detect(torch.randn(1, 1, 64, 96))
    assert found.boxes.shape == (0, 4)
    assert found.mask_probabilities is not None and found.mask_probabilities.shape == (0, 8, 8)


@pytest.mark.parametrize("part", ["rpn_head", "box_head"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_no_nothing_found(tiny_model: Tiny, part: str, value: float) -> None:
    network = build_model(tiny_model(2)).eval()
    with torch.no_grad():
        for bias in (p for name, p in getattr(network, part).named_parameters() if name.endswith("bias")):
            bias.fill_(value)
    with pytest.raises(MedMaskRCNNError, match="in fp32 is not finite"):
        network.detect(torch.randn(1, 1, 64, 96))


@pytest.mark.parametrize("matcher", ["iou", "atss"])
@pytest.mark.parametrize("dims", [2, 3])
def test_losses_reach_every_weight(tiny_model: Tiny, dims: int, matcher: str) -> None:
    network = build_model(tiny_model(dims, rpn=RPNSettings(pre_nms_top_n=60, post_nms_top_n=30, matcher=matcher)))
    terms = network.losses(torch.randn(2, 1, *SHAPE[dims]), [objects(dims), nothing(dims)])
    assert tuple(terms) == TERMS
    assert all(term.shape == () and term.isfinite() and term > 0 for term in terms.values())
    sum(terms.values()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0 or "norm" in name or "bn" in name, f"{name} learns nothing"


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("masks", [True, False])
def test_a_batch_without_objects_can_be_learnt_from(tiny_model: Tiny, dims: int, masks: bool) -> None:
    network = build_model(tiny_model(dims, with_masks=masks))
    terms = network.losses(torch.randn(2, 1, *SHAPE[dims]), [nothing(dims)] * 2)
    assert all(term.isfinite() for term in terms.values())
    assert terms["objectness"] > 0 and terms["classification"] > 0
    assert terms["rpn_box"] == 0 and terms["box"] == 0 and terms.get("mask", 0) == 0
    sum(terms.values()).backward()
    grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)


def test_faster_rcnn_needs_no_masks(tiny_model: Tiny) -> None:
    network = build_model(tiny_model(2, with_masks=False))
    target = objects(2)
    terms = network.losses(torch.randn(1, 1, *SHAPE[2]), [Targets(target.boxes, target.labels)])
    assert tuple(terms) == TERMS[:-1]
    assert not [name for name in network.state_dict() if "mask" in name]


def test_a_mask_head_needs_masks(tiny_model: Tiny) -> None:
    target = objects(2)
    with pytest.raises(ValueError, match="needs masks in its targets"):
        build_model(tiny_model(2)).losses(torch.randn(1, 1, *SHAPE[2]), [Targets(target.boxes, target.labels)])


def test_every_image_needs_its_targets(tiny_model: Tiny) -> None:
    with pytest.raises(ValueError, match="one Targets per image, got 1 for 2 images"):
        build_model(tiny_model(2)).losses(torch.randn(2, 1, *SHAPE[2]), [objects(2)])


def test_weights_of_the_terms(tiny_model: Tiny) -> None:
    def terms(loss: LossSettings) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return build_model(tiny_model(2, loss=loss)).losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)])

    plain = terms(LossSettings())
    weighted = terms(LossSettings(objectness=2, rpn_box=3, classification=4, box=5, mask=0))
    for name, factor in zip(TERMS, (2, 3, 4, 5, 0), strict=True):
        torch.testing.assert_close(weighted[name], plain[name] * factor)


@pytest.mark.parametrize("dims", [2, 3])
def test_in_bfloat16_logits_and_deltas_stay_in_float32(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims)).eval()
    dtypes: dict[str, set[torch.dtype]] = {}
    names = ("rpn_head.objectness", "rpn_head.deltas", "box_head.classes", "box_head.deltas", "mask_head.logits")
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _module, inputs, output, name=name: dtypes.setdefault(name, set()).update(
                {inputs[0].dtype, output.dtype}
            )
        )
    features: list[torch.dtype] = []
    network.pyramid.register_forward_hook(lambda _module, _inputs, output: features.append(output[0].dtype))
    image = torch.randn(1, 1, *SHAPE[dims])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = network.detect(image)
        terms = network.losses(image, [objects(dims)])
    assert features[0] == torch.bfloat16, "the dense part must run in bfloat16, or this shows nothing"
    assert dtypes == {name: {torch.float32} for name in names}
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.mask_probabilities is not None and found.mask_probabilities.dtype == torch.float32
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())


def test_frozen_constants_are_kept_while_training(tiny_model: Tiny) -> None:
    backbone = BackboneSettings(name="light", light_channels=(8, 8, 16, 16), norm="frozen_batch", fpn_channels=8)
    network = build_model(tiny_model(2, backbone=backbone))
    constants = {name: value.clone() for name, value in network.named_buffers()}
    assert constants
    network.train()
    sum(network.losses(torch.randn(1, 1, *SHAPE[2]), [objects(2)]).values()).backward()
    assert all(torch.equal(constants[name], value) for name, value in network.named_buffers())


def test_it_learns_an_image_by_heart(tiny_model: Tiny) -> None:
    """Two objects on one image are found, told apart and outlined after a few steps."""
    network = build_model(tiny_model(2))
    target = objects(2)
    image = torch.randn(1, 1, *SHAPE[2]) * 0.2
    image[0, 0] += target.masks[0] - 1.5 * target.masks[1]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    first = last = 0.0
    for _ in range(80):
        loss = sum(network.losses(image, [target]).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        first, last = first or loss.item(), loss.item()
    assert last < 0.4 * first
    (found,) = network.eval().detect(image)
    sure = found.scores > 0.5
    overlap = box_iou(target.boxes, found.boxes[sure])
    assert (overlap.amax(dim=1) > 0.6).all(), overlap
    assert found.labels[sure][overlap.argmax(dim=1)].tolist() == [0, 1]
    assert found.mask_probabilities is not None
    assert (found.mask_probabilities[sure].mean(dim=(1, 2)) > 0.5).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_two_halves_with_shared_counts_are_one_batch(dims: int, tiny_model: Tiny) -> None:
    torch.manual_seed(0)
    network = build_model(tiny_model(dims))
    images = torch.randn(2, 1, *SHAPE[dims])
    targets = [objects(dims), nothing(dims)]
    whole = network.losses(images, targets, seeds=[5, 6])
    counts: list[torch.Tensor] = []

    def noted(own: torch.Tensor) -> torch.Tensor:
        counts.append(own)
        return own

    for i in range(2):
        network.losses(images[i : i + 1], targets[i : i + 1], seeds=[5 + i], share_counts=noted)
    shared = (counts[0] + counts[1]) / 2
    halves = [
        network.losses(images[i : i + 1], targets[i : i + 1], seeds=[5 + i], share_counts=lambda _: shared)
        for i in range(2)
    ]
    for name, value in whole.items():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, value, rtol=1e-5, atol=1e-6)

"""The network by torchvision's conventions: images and dicts of targets in, losses or dicts of detections out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.conventions import LOSS_NAMES, swap_xy, targets_from
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import ModelSettings

Tiny = Callable[..., ModelSettings]
Target = dict[str, Any]
SHAPE = {2: (40, 50), 3: (10, 40, 50)}
"""Not multiples of any stride."""
OBJECT = {2: ((5, 8), (25, 38)), 3: ((2, 5, 8), (7, 25, 38))}
"""First voxel and last voxel + 1 in the array's order of axes."""


def target(dims: int, shape: tuple[int, ...] | None = None, *, label: int = 2) -> Target:
    low, high = OBJECT[dims]
    mask = torch.zeros((1, *(shape or SHAPE[dims])), dtype=torch.uint8)
    mask[0][tuple(map(slice, low, high))] = 1
    box = torch.tensor([[*reversed(low), *reversed(high)]], dtype=torch.float32)
    return {"boxes": box, "labels": torch.tensor([label]), "masks": mask}


def nothing(dims: int) -> Target:
    return {
        "boxes": torch.zeros(0, 2 * dims),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros((0, *SHAPE[dims]), dtype=torch.uint8),
    }


def images(dims: int) -> list[Tensor]:
    larger = tuple(n + 7 for n in SHAPE[dims])
    return [torch.randn(1, *SHAPE[dims]), torch.randn(1, *larger)]


@pytest.fixture
def network(tiny_model: Tiny) -> Callable[[int], MaskRCNN]:
    return lambda dims: build_model(tiny_model(dims))


@pytest.mark.parametrize("dims", [2, 3])
def test_training_mode_gives_losses_by_torchvisions_names(network: Callable[[int], MaskRCNN], dims: int) -> None:
    model, (small, large) = network(dims), images(dims)
    terms = model([small, large], [target(dims), target(dims, tuple(large.shape[1:]))])
    assert set(terms) == set(LOSS_NAMES.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(term.isfinite() for term in model([small], [nothing(dims)]).values())


@pytest.mark.parametrize("dims", [2, 3])
def test_the_losses_are_those_of_the_packages_own_training(network: Callable[[int], MaskRCNN], dims: int) -> None:
    model, image = network(dims), images(dims)[:1]
    strides = model.settings.backbone.strides[-1]
    padded = torch.zeros(1, 1, *(-(-n // s) * s for n, s in zip(SHAPE[dims], strides, strict=True)))
    padded[(0, 0, *map(slice, SHAPE[dims]))] = image[0][0]
    low, high = OBJECT[dims]
    torch.manual_seed(3)
    by_convention = model(image, [target(dims)])
    torch.manual_seed(3)
    (ours,) = targets_from([target(dims)], [SHAPE[dims]], model.settings, image[0])
    assert ours.boxes.tolist() == [[*low, *high]] and ours.labels.tolist() == [1]
    own = model.losses(padded, [ours], [SHAPE[dims]])
    assert {LOSS_NAMES[name] for name in own} == set(by_convention)
    assert all(torch.equal(value, by_convention[LOSS_NAMES[name]]) for name, value in own.items())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("masks", [True, False])
def test_evaluation_mode_gives_dicts_of_detections(tiny_model: Tiny, dims: int, masks: bool) -> None:
    model = build_model(tiny_model(dims, with_masks=masks)).eval()
    for image, found in zip(images(dims), model(images(dims)), strict=True):
        count, shape = len(found["scores"]), image.shape[1:]
        assert count and set(found) == {"boxes", "labels", "scores", *(["masks"] if masks else [])}
        assert found["boxes"].shape == (count, 2 * dims) and not found["boxes"].requires_grad
        assert (found["boxes"][:, dims:] <= torch.tensor(shape[::-1])).all()
        assert found["labels"].dtype == torch.int64 and set(found["labels"].tolist()) <= {1, 2}
        if masks:
            assert found["masks"].shape == (count, 1, *shape)
            assert found["masks"].dtype == torch.float32
            inside = swap_xy(found["boxes"]).round().long()
            for mask, box in zip(found["masks"][:, 0], inside.tolist(), strict=True):
                outside = mask.clone()
                outside[tuple(slice(max(0, a - 1), b + 1) for a, b in zip(box[:dims], box[dims:], strict=True))] = 0
                assert not outside.any() and mask.amax() <= 1


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_that_cover_more_than_their_boxes_lie_where_they_belong(tiny_model: Tiny, dims: int) -> None:
    roi = tiny_model(dims).roi.model_copy(update={"mask_margin": 0.5})
    model = build_model(tiny_model(dims, roi=roi)).eval()
    image = torch.randn(1, 1, *(64,) * dims)
    (found,), (own,) = model(image), model.detect(image)
    assert own.mask_boxes is not None and own.mask_probabilities is not None
    low, high = own.mask_boxes[0, :dims].ceil().int().tolist(), own.mask_boxes[0, dims:].floor().int().tolist()
    crop = found["masks"][0, 0][tuple(map(slice, low, high))]
    assert crop.amin() > 0 and crop.amax() <= own.mask_probabilities[0].amax() + 1e-6


def test_an_image_is_found_alike_alone_padded_and_in_a_batch(network: Callable[[int], MaskRCNN]) -> None:
    model, (small, large) = network(2).eval(), images(2)
    (alone,) = model([small])
    together = model((small, large))[0]
    (batch,) = model(small[None])
    for found in (together, batch):
        assert torch.equal(found["labels"], alone["labels"])
        torch.testing.assert_close(found["boxes"], alone["boxes"], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="at least one image"):
        model([])


def test_targets_are_not_needed_to_detect_and_needed_to_train(network: Callable[[int], MaskRCNN]) -> None:
    model = network(2)
    with pytest.raises(ValueError, match="training mode"):
        model(images(2))
    found = model.eval()(images(2)[:1], [{"boxes": "not read"}])
    assert len(found) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_metatensors_and_doubles_are_taken(network: Callable[[int], MaskRCNN], dims: int) -> None:
    model, image, own = network(dims), images(dims)[0], target(dims)
    wrapped = {name: MetaTensor(value) for name, value in own.items()}
    wrapped["boxes"] = wrapped["boxes"].double()
    torch.manual_seed(0)
    expected = model([image], [own])
    torch.manual_seed(0)
    terms = model([MetaTensor(image).double()], [wrapped])
    for name, value in terms.items():
        assert type(value) is Tensor
        torch.testing.assert_close(value, expected[name])
    (found,) = model.eval()(MetaTensor(image[None]))
    assert {type(value) for value in found.values()} == {Tensor}


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.float64])
def test_masks_of_each_dtype_mean_the_same(network: Callable[[int], MaskRCNN], dtype: torch.dtype, value: int) -> None:
    model, own = network(2), target(2)
    expected = targets_from([own], [SHAPE[2]], model.settings, torch.zeros(1))[0].masks
    own["masks"] = own["masks"] * (value if dtype == torch.uint8 else 1)
    (found,) = targets_from([own | {"masks": own["masks"].to(dtype)}], [SHAPE[2]], model.settings, torch.zeros(1))
    assert found.masks is not None and expected is not None
    assert torch.equal(found.masks.float(), expected.float())


def test_crowds_are_ignored_and_extra_keys_not_read(network: Callable[[int], MaskRCNN]) -> None:
    model, own = network(2), target(2)
    crowd = {
        "boxes": torch.cat([own["boxes"], torch.tensor([[0.0, 0, 4, 4]])]),
        "labels": torch.tensor([2, 1]),
        "masks": torch.cat([own["masks"], torch.zeros(1, *SHAPE[2], dtype=torch.uint8)]),
        "iscrowd": torch.tensor([0, 1]),
        "image_id": 7,
        "area": torch.ones(2),
        "annotated": torch.tensor([True, False]),
    }
    crowd["masks"][1, :4, :4] = 1
    (found,) = targets_from([crowd], [SHAPE[2]], model.settings, torch.zeros(1))
    assert found.labels.tolist() == [1] and found.masks is not None and len(found.masks) == 1
    assert found.ignored_boxes is not None and found.ignored_boxes.tolist() == [[0, 0, 4, 4]]
    assert found.ignored_mask is not None and int(found.ignored_mask.sum()) == 16
    assert found.annotated is not None and found.annotated.tolist() == [True, False]


def test_torchvisions_own_tensors_are_taken(network: Callable[[int], MaskRCNN]) -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    model, own = network(2), target(2)
    own["boxes"] = tv_tensors.BoundingBoxes(own["boxes"], format="XYXY", canvas_size=SHAPE[2])
    own["masks"] = tv_tensors.Mask(own["masks"])
    terms = model([tv_tensors.Image(torch.rand(1, *SHAPE[2]))], [own])
    assert {type(term) for term in terms.values()} == {Tensor}
    own["boxes"] = tv_tensors.BoundingBoxes(own["boxes"], format="XYWH", canvas_size=SHAPE[2])
    with pytest.raises(ValueError, match=r"targets\[0\]\['boxes'\].*XYXY"):
        model([torch.rand(1, *SHAPE[2])], [own])


def wrong(dims: int) -> dict[str, tuple[Target, type[Exception], str]]:
    """What is wrong with the second target, the error, and what its message must name."""
    good = target(dims)
    box = good["boxes"]

    def boxes(axis: int, value: float) -> Target:
        changed = box.clone()
        changed[0, axis] = value
        return good | {"boxes": changed}

    return {
        "no masks": ({k: v for k, v in good.items() if k != "masks"}, ValueError, r"targets\[1\] has no masks"),
        "mask of another shape": (
            good | {"masks": good["masks"][..., :-1]},
            ValueError,
            r"\['masks'\] must have shape",
        ),
        "masks with a channel": (good | {"masks": good["masks"][:, None]}, ValueError, r"\['masks'\] must have shape"),
        "a mask too many": (good | {"masks": good["masks"].repeat(2, *[1] * dims)}, ValueError, r"\['masks'\]"),
        "a mask that is not 0 or 1": (good | {"masks": good["masks"] * 7}, ValueError, r"\['masks'\]\[0\]"),
        "a soft mask beyond 1": (good | {"masks": good["masks"] * 1.5}, ValueError, r"\['masks'\]\[0\]"),
        "a mask of NaN": (good | {"masks": good["masks"] * torch.nan}, ValueError, r"\['masks'\]\[0\]"),
        "masks of whole numbers": (good | {"masks": good["masks"].long()}, TypeError, r"\['masks'\].*int64"),
        "no extent": (boxes(dims, float(box[0, 0])), ValueError, r"\['boxes'\]\[0\] has no extent along x"),
        "turned over": (boxes(0, 39.0), ValueError, r"\['boxes'\]\[0\] has no extent along x"),
        "not a number": (boxes(0, torch.nan), ValueError, r"\['boxes'\]\[0\] is not finite"),
        "infinite": (boxes(dims, torch.inf), ValueError, r"\['boxes'\]\[0\] is not finite"),
        "beyond the image": (boxes(dims, 51.0), ValueError, r"\['boxes'\]\[0\] lies outside"),
        "before the image": (boxes(0, -3.0), ValueError, r"\['boxes'\]\[0\] lies outside"),
        "rows and columns swapped": (good | {"boxes": swap_xy(box) + 20}, ValueError, r"\['boxes'\]\[0\] lies outside"),
        "boxes of another dimension": (good | {"boxes": torch.rand(1, 10 - 2 * dims)}, ValueError, r"\['boxes'\]"),
        "whole boxes": (good | {"boxes": box.long()}, TypeError, r"\['boxes'\].*int64"),
        "a list of boxes": (good | {"boxes": box.tolist()}, TypeError, r"\['boxes'\].*list"),
        "an empty list": (nothing(dims) | {"boxes": torch.zeros(0)}, ValueError, rf"\['boxes'\].*\(0, {2 * dims}\)"),
        "label 0": (good | {"labels": torch.tensor([0])}, ValueError, r"\['labels'\]\[0\] is 0"),
        "a label too high": (good | {"labels": torch.tensor([3])}, ValueError, r"\['labels'\]\[0\] is 3"),
        "labels as floats": (good | {"labels": torch.tensor([1.0])}, TypeError, r"\['labels'\].*float32"),
        "a label too many": (
            good | {"labels": torch.tensor([1, 1])},
            ValueError,
            r"\['labels'\] must have shape \(1,\)",
        ),
        "crowds of another length": (good | {"iscrowd": torch.zeros(2)}, ValueError, r"\['iscrowd'\]"),
        "annotated of another length": (good | {"annotated": torch.ones(3) > 0}, ValueError, r"\['annotated'\]"),
    }


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("what", list(wrong(2)))
def test_a_wrong_target_is_named(network: Callable[[int], MaskRCNN], dims: int, what: str) -> None:
    model, (bad, error, message) = network(dims), wrong(dims)[what]
    with pytest.raises(error, match=message) as raised:
        model(torch.randn(2, 1, *SHAPE[dims]), [target(dims), bad])
    assert str(raised.value).startswith("targets[1]")


def test_wrong_lists_and_images_are_named(network: Callable[[int], MaskRCNN]) -> None:
    model, good = network(2), torch.randn(1, *SHAPE[2])
    holed = good.clone()
    holed[0, 3, 3] = torch.nan
    for wrong_images, error, message in (
        ([good, good.byte()], TypeError, r"images\[1\].*uint8"),
        ([good, good[0]], ValueError, r"images\[1\] must have shape \(1, H, W\)"),
        ([good, good.repeat(3, 1, 1)], ValueError, r"images\[1\] must have shape \(1, H, W\)"),
        ([good, holed], ValueError, r"images\[1\] holds values that are not finite"),
        ([good, good.numpy()], TypeError, r"images\[1\] must be a tensor"),
        (good, ValueError, r"\(B, 1, H, W\)"),
    ):
        with pytest.raises(error, match=message):
            model(wrong_images, [target(2)] * 2)
    with pytest.raises(ValueError, match="each of the 2 images, got 1"):
        model([good, good], [target(2)])
    with pytest.raises(TypeError, match="a list with a dict for each image"):
        model([good], target(2))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sliding_window_merges_maps_of_classes(network: Callable[[int], MaskRCNN], dims: int) -> None:
    model = network(dims).eval()
    scan = torch.randn(1, 1, *(n + 12 for n in SHAPE[dims]))
    maps = SlidingWindowInferer(SHAPE[dims], sw_batch_size=2, overlap=0.25)(scan, model.semantic)
    assert isinstance(maps, Tensor) and maps.shape == (1, 2, *scan.shape[2:])
    assert 0 < maps.amax() <= 1
    window = scan[(..., *map(slice, SHAPE[dims]))]
    (found,) = model(window)
    best = found["scores"].argmax()
    expected = found["scores"][best] * found["masks"][best, 0]
    assert (model.semantic(window)[0, found["labels"][best] - 1] >= expected - 1e-6).all()


@pytest.mark.slow  # compiling
@pytest.mark.parametrize(("dims", "training"), [(2, True), (3, False)])
def test_compiled_it_gives_the_same(network: Callable[[int], MaskRCNN], dims: int, training: bool) -> None:
    torch._dynamo.reset()
    model, image = network(dims).train(training), images(dims)[:1]
    compiled = torch.compile(model, backend="aot_eager")
    torch.manual_seed(0)
    expected = model(image, [target(dims)])
    torch.manual_seed(0)
    found = compiled(image, [target(dims)])
    torch.testing.assert_close(found, expected)

"""Samples: image and masks move together, boxes are tight, chance is in the generator's hands."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from scipy import ndimage

from medmaskrcnn.data.cases import LabelledCase, TrainingObject
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import AnchorSettings, BackboneSettings, ModelCard, ModelSettings, PreprocessSettings
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.training.augment import Augmenter, Transform
from medmaskrcnn.training.plan import AugmentSettings, Plan
from medmaskrcnn.training.samples import ResumableBatchSampler, draw_sample

SHAPE = (12, 48, 40)


def blocks(*windows: tuple[int, tuple[int, ...], tuple[int, ...]]) -> LabelledCase:
    """A case of boxes ``(label, low, high)`` whose image is 1 where an object lies and 0 elsewhere."""
    image = torch.zeros(1, *SHAPE)
    objects = []
    for label, low, high in windows:
        image[(0, *(slice(a, b) for a, b in zip(low, high, strict=True)))] = 1
        objects.append(TrainingObject(label, Mask(low, np.full(np.subtract(high, low), 255, np.uint8))))
    return LabelledCase("blocks", image.half(), tuple(objects))


ONE = blocks((0, (3, 14, 10), (9, 34, 26)))
MOVED = {"rotate_degrees": 25.0, "zoom": 0.2, "shift": 0.05, "elastic": 0.03}
HALF = 128  # of 255


def make_plan(dims: int, context: int, **augment: object) -> Plan:
    strides = ((1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 32, 32)) if dims == 3 else BackboneSettings().strides
    model = ModelSettings(
        spatial_dims=dims,
        context_slices=context,
        class_names=("a", "b", "c", "d"),
        backbone=BackboneSettings(name="light", strides=strides),
        anchors=AnchorSettings(sizes=((8,) * dims,) * 5),
    )
    settings = AugmentSettings(**{"patch": (12, 40, 32) if dims == 3 else (1, 40, 32), **augment})
    preprocess = PreprocessSettings(pad_multiple=(1, 32, 32)[3 - dims :])
    return Plan(card=ModelCard(name="test"), model=model, preprocess=preprocess, augment=settings)


def draw(
    case: LabelledCase,
    seed: int,
    dims: int = 3,
    context: int = 0,
    transform: Transform | None = None,
    **augment: object,
) -> tuple[torch.Tensor, Targets]:
    plan = make_plan(dims, context, **augment)
    sample = draw_sample(case, plan, Augmenter(plan.augment, spatial_dims=dims, transform=transform), (seed,))
    return sample.image, sample.targets


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_move_together(dims: int, seed: int) -> None:
    image, targets = draw(ONE, seed, dims, foreground_prob=1.0, **MOVED)
    assert image.shape == ((1, 12, 40, 32) if dims == 3 else (1, 40, 32))
    if len(targets.boxes):
        torch.testing.assert_close(targets.masks[0] / 255, image[0], atol=0.51 / 255, rtol=0)
    else:
        assert image.sum() < 4


def test_context_slices_surround_the_slice_of_the_masks() -> None:
    case = blocks((0, (0, 0, 0), (12, 48, 40)))
    ramp = torch.arange(1.0, 13.0)[None, :, None, None].expand(1, *SHAPE)
    case = LabelledCase("ramp", ramp.half(), case.objects)
    seen = set()
    for seed in range(60):
        image, targets = draw(case, seed, 2, context=1, foreground_prob=0.5)
        assert image.shape == (3, 40, 32) and targets.masks.shape[1:] == (40, 32)
        below, here, above = (float(x) for x in image.amax(dim=(1, 2)))
        assert below == here - 1 and above == (here + 1 if here < 12 else 0)  # beyond the ends: zeros
        seen.add(int(here))
    assert {1, 12} <= seen  # the outermost slices are learnt too


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_ignored_regions_move_with_the_image_and_are_no_objects(dims: int, seed: int) -> None:
    case = blocks((0, (3, 14, 10), (9, 34, 26)))
    ignored = Mask((0, 0, 0), np.zeros(SHAPE, np.uint8))
    whole = ignored.array.copy()
    for _, low, high in ((0, (2, 4, 2), (11, 10, 9)), (0, (1, 36, 24), (12, 44, 36))):
        whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 255
    image = torch.cat([case.image, torch.from_numpy(whole)[None].half() / 255])  # a channel that shows it
    case = LabelledCase("ignored", image, case.objects, Mask((0, 0, 0), whole))
    image, targets = draw(case, seed, dims, foreground_prob=0.0, **MOVED)
    assert set(targets.labels.tolist()) <= {0} and len(targets.masks) == len(targets.labels) == len(targets.boxes)
    seen = image[1] >= HALF / 255 - 0.25 / 255
    if targets.ignored_mask is None:
        assert not seen.any()
        return
    torch.testing.assert_close(targets.ignored_mask / 255, image[1], atol=0.51 / 255, rtol=0)
    parts, count = ndimage.label(targets.ignored_voxels.numpy(), np.ones((3,) * dims))
    assert len(targets.ignored_boxes) == count
    for number, box in enumerate(targets.ignored_boxes, start=1):
        inside = torch.from_numpy(np.argwhere(parts == number))
        assert box.tolist() == [*inside.amin(dim=0).tolist(), *(inside.amax(dim=0) + 1).tolist()]


def test_two_ignored_regions_have_two_boxes() -> None:
    whole = np.zeros(SHAPE, np.uint8)
    whole[2:5, 2:8, 3:9] = whole[2:5, 30:40, 20:30] = 255
    case = LabelledCase("two", ONE.image, ONE.objects, Mask((0, 0, 0), whole))
    _, targets = draw(case, 0, foreground_prob=0.0, patch=SHAPE)
    assert targets.ignored_boxes.tolist() == [[2, 2, 3, 5, 8, 9], [2, 30, 20, 5, 40, 30]]


def test_what_is_annotated_goes_with_the_sample() -> None:
    case = LabelledCase("partly", ONE.image, ONE.objects, None, (True, False, True, False))
    _, targets = draw(case, 0, foreground_prob=1.0)
    assert targets.annotated.tolist() == [True, False, True, False]
    assert draw(ONE, 0)[1].annotated is None and draw(ONE, 0)[1].ignored_boxes is None


@pytest.mark.parametrize("known", [(True, True, True, True), (True, False, False, False)])
def test_windows_of_a_partly_labelled_case_lie_around_its_objects(known: tuple[bool, ...]) -> None:
    whole = np.zeros(SHAPE, np.uint8)
    whole[:, :4] = 255
    case = LabelledCase("partly", ONE.image, ONE.objects, Mask((0, 0, 0), whole), known)
    options = {"foreground_prob": 1.0, "patch": (12, 24, 24), "oversampled_class": "b"}
    for seed in range(10):  # class b is unknown or absent here, the ignored region is no object
        image, targets = draw(case, seed, **options)
        assert torch.equal(image, draw(ONE, seed, **options)[0])
        assert targets.labels.tolist() == [0]


def test_rotation_keeps_areas_and_zoom_changes_them() -> None:
    case = blocks((0, (0, 16, 12), (12, 32, 28)))
    turned, _ = draw(case, 1, foreground_prob=0.0, patch=SHAPE, rotate_degrees=45.0)
    plain, _ = draw(case, 1, foreground_prob=0.0, patch=SHAPE)
    assert not torch.equal(turned, plain)
    assert float(turned.sum()) == pytest.approx(float(plain.sum()), rel=0.02)
    areas = [float(draw(case, s, foreground_prob=0.0, patch=SHAPE, zoom=0.2)[0].sum() / plain.sum()) for s in range(12)]
    assert min(areas) < 0.95 and max(areas) > 1.05
    assert min(areas) > 1 / 1.2**3 - 0.03 and max(areas) < 1 / 0.8**3 + 0.03


@pytest.mark.parametrize("dims", [2, 3])
def test_boxes_are_tight_around_half_filled_voxels(dims: int) -> None:
    case = blocks((0, (2, 5, 4), (9, 24, 22)), (1, (4, 12, 10), (8, 18, 16)), (1, (1, 30, 20), (10, 44, 36)))
    checked = 0
    for seed in range(12):
        _, targets = draw(case, seed, dims, **MOVED)
        assert len(targets.boxes) == len(targets.labels) == len(targets.masks)
        for box, mask in zip(targets.boxes, targets.masks, strict=True):
            inside = torch.nonzero(mask >= HALF)
            assert len(inside) >= 4
            assert box.tolist() == [*inside.amin(dim=0).tolist(), *(inside.amax(dim=0) + 1).tolist()]
            checked += 1
    assert checked > 12


def test_labels_follow_their_objects() -> None:
    case = blocks((0, (2, 4, 4), (5, 12, 12)), (3, (7, 30, 24), (11, 44, 38)))
    _, targets = draw(case, 0, patch=SHAPE)
    assert targets.labels.tolist() == [0, 3]
    assert targets.boxes.tolist() == [[2, 4, 4, 5, 12, 12], [7, 30, 24, 11, 44, 38]]


def test_slivers_are_left_out() -> None:
    case = blocks((0, (3, 10, 10), (4, 11, 13)), (1, (3, 20, 20), (5, 22, 22)))
    _, targets = draw(case, 0, patch=SHAPE)
    assert targets.labels.tolist() == [1]  # the first has three voxels


@pytest.mark.parametrize("dims", [2, 3])
def test_a_case_without_objects(dims: int) -> None:
    image, targets = draw(blocks(), 0, dims, foreground_prob=1.0, **MOVED)
    assert image.sum() == 0 and targets.boxes.shape == (0, 2 * dims)
    assert targets.labels.shape == (0,) and targets.masks.shape == (0, *image.shape[1:])


def test_the_generator_decides_everything() -> None:
    recoloured = {"shift_intensity": 0.3, "scale_intensity": 0.3, "gamma": 0.2, "bias_field": 0.2}
    chance = {**MOVED, **recoloured, "noise": 0.2}
    torch.manual_seed(1)
    image, targets = draw(ONE, 5, **chance)
    torch.manual_seed(2)
    again, same = draw(ONE, 5, **chance)
    assert torch.equal(image, again)
    assert torch.equal(targets.boxes, same.boxes) and torch.equal(targets.masks, same.masks)
    other, _ = draw(ONE, 6, **chance)
    assert not torch.equal(image, other)


def test_intensities_change_and_masks_do_not() -> None:
    plain, targets = draw(ONE, 3, foreground_prob=0.0, patch=SHAPE)
    changed, same = draw(ONE, 3, foreground_prob=0.0, patch=SHAPE, shift_intensity=0.3, scale_intensity=0.3, noise=0.1)
    assert torch.equal(targets.masks, same.masks)
    scale, shift = changed[plain == 1].mean() - changed[plain == 0].mean(), changed[plain == 0].mean()
    assert 0.65 < scale < 1.35 and abs(shift) < 0.35
    assert 0 < changed[plain == 0].std() < 0.11


def test_foreground_windows_meet_an_object() -> None:
    case = blocks((0, (1, 2, 2), (4, 8, 8)))
    small = {"patch": (4, 12, 12)}
    met = sum(len(draw(case, s, foreground_prob=1.0, **small)[1].boxes) for s in range(20))
    by_chance = sum(len(draw(case, s, foreground_prob=0.0, **small)[1].boxes) for s in range(20))
    assert met >= 19 > by_chance


def test_windows_larger_than_the_scan_are_padded() -> None:
    image, targets = draw(ONE, 0, patch=(20, 64, 64))
    assert image.shape == (1, 20, 64, 64) and image.sum() == 6 * 20 * 16
    assert targets.boxes.tolist() == [[7, 22, 22, 13, 42, 38]]  # the scan sits in the middle


def test_what_rotates_into_the_window_is_there() -> None:
    """The window is cut with a margin, so its corners hold the scan, not padding."""
    case = blocks((0, (5, 22, 18), (7, 26, 22)))
    case = LabelledCase("bright", torch.ones_like(case.image), case.objects)
    for seed in range(8):
        image, _ = draw(case, seed, foreground_prob=1.0, patch=(4, 16, 16), rotate_degrees=45.0, zoom=0.2)
        assert image[:, 1:3].min() > 0.99  # off centre and zoomed out, the outer slices lie beyond the scan


@pytest.mark.parametrize("dims", [2, 3])
def test_flips_mirror_image_and_masks(dims: int) -> None:
    case = blocks((0, (2, 4, 4), (5, 12, 20)))
    still = {"foreground_prob": 0.0, "patch": SHAPE if dims == 3 else (1, *SHAPE[1:])}
    left = set()
    for seed in range(12):
        image, targets = draw(case, seed, dims, flip=("W",), **still)
        if len(targets.boxes):
            assert torch.equal(targets.masks[0] > 0, image[0] > 0)
            left.add(float(targets.boxes[0][dims - 1]))
    assert left == {4.0, 40.0 - 20.0}


@pytest.mark.parametrize(
    "left", ["left kidney", "kidney_left", "kidney-left", "kidney (left)", "kidney_L", "LeftKidney"]
)
def test_sides_forbid_a_left_right_flip(left: str) -> None:
    values = make_plan(3, 0).model_dump()
    values["model"]["class_names"] = (left, "b", "c", "d")
    values["augment"]["flip"] = ("H",)
    Plan.model_validate(values)
    values["augment"]["flip"] = ("H", "W")
    with pytest.raises(ValueError, match="swaps left and right"):
        Plan.model_validate(values)


def test_colours_change_apart() -> None:
    case = blocks((0, (0, 0, 0), SHAPE))
    case = LabelledCase("colour", case.image.expand(3, *SHAPE).contiguous(), case.objects)
    plan = make_plan(2, 0, colour=0.3)
    sample = draw_sample(case, plan, Augmenter(plan.augment, spatial_dims=2), (4,))
    means = sample.image.mean(dim=(1, 2)).tolist()
    assert len({round(m, 4) for m in means}) == 3 and all(0.6 < m < 1.4 for m in means)


def test_a_transform_of_ones_own_comes_last() -> None:
    def shifted(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        noise = torch.rand(()) + float(np.random.rand())
        return {name: value.roll(4, -1) + (noise if name == "image" else 0) for name, value in sample.items()}

    plain, before = draw(ONE, 3, foreground_prob=0.0, patch=SHAPE)
    changed, after = draw(ONE, 3, foreground_prob=0.0, patch=SHAPE, transform=shifted)
    again, _ = draw(ONE, 3, foreground_prob=0.0, patch=SHAPE, transform=shifted)
    assert torch.equal(after.masks, before.masks.roll(4, -1))
    assert torch.equal(changed, again) and not torch.allclose(changed, plain.roll(4, -1))


@pytest.mark.parametrize("world", [1, 2])
def test_processes_share_the_samples_of_a_pass(world: int) -> None:
    parts = [list(ResumableBatchSampler(5, 4, first=2, rank=rank, world=world)) for rank in range(world)]
    assert all(len(part) == 3 for part in parts)
    passes = [sorted(chain.from_iterable(p)) for p in zip(*parts, strict=True)]
    assert passes == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


def test_five_hundred_objects() -> None:
    spots = [(0, (0, 2 * h, 2 * w), (12, 2 * h + 2, 2 * w + 2)) for h in range(24) for w in range(20)]
    _, targets = draw(blocks(*spots), 0, 2, foreground_prob=0.0, patch=(1, 48, 40), rotate_degrees=5.0)
    assert len(targets.boxes) > 100 and targets.masks.shape[1:] == (48, 40)

"""Which anchor learns which object, and which anchors count: by hand, and against torchvision's matcher."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from medmaskrcnn.models.anchors import grid_anchors
from medmaskrcnn.models.box_coder import box_iou
from medmaskrcnn.models.matching import BACKGROUND, IGNORED, match_atss, match_by_iou
from medmaskrcnn.models.sampling import sample
from medmaskrcnn.settings import AnchorSettings

OBJECTS = torch.tensor([[0.0, 0, 10, 10], [0, 20, 10, 30]])


def test_thresholds_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [0, 20, 10, 27], [50, 50, 60, 60]])
    # overlaps with the nearer object: 1, 0.5, 0.2, 0.7, 0; a threshold belongs to the foreground
    matches = match_by_iou(OBJECTS, boxes, foreground=0.5, background=0.3, allow_low_quality_matches=False)
    assert matches.tolist() == [0, 0, BACKGROUND, 1, BACKGROUND]
    matches = match_by_iou(OBJECTS, boxes, foreground=0.8, background=0.3, allow_low_quality_matches=False)
    assert matches.tolist() == [0, IGNORED, BACKGROUND, IGNORED, BACKGROUND]


def test_rescue_gives_each_object_its_best_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 2], [0, 8, 10, 10], [0, 20, 10, 21]])
    assert (
        match_by_iou(OBJECTS, boxes, foreground=0.7, background=0.3, allow_low_quality_matches=False).tolist()
        == [BACKGROUND] * 3
    )
    # the first two overlap object 0 equally: both are its best
    assert match_by_iou(OBJECTS, boxes, foreground=0.7, background=0.3, allow_low_quality_matches=True).tolist() == [
        0,
        0,
        1,
    ]


def test_rescue_spares_boxes_that_touch_nothing() -> None:
    far = torch.tensor([[50.0, 50, 60, 60], [70, 70, 80, 80]])
    matches = match_by_iou(OBJECTS, far, foreground=0.7, background=0.3, allow_low_quality_matches=True)
    assert matches.tolist() == [BACKGROUND, BACKGROUND]


@pytest.mark.parametrize("allow_low_quality_matches", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_torchvision_as_oracle(allow_low_quality_matches: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((60, 2), generator=generator) * 30
    boxes = torch.cat([low, low + 5 + torch.rand((60, 2), generator=generator) * 20], dim=1)
    objects, boxes = boxes[:6], boxes[3:]  # three boxes are objects themselves
    expected = Matcher(0.6, 0.3, allow_low_quality_matches=allow_low_quality_matches)(box_iou(objects, boxes))
    assert set(expected.tolist()) > {BACKGROUND, IGNORED}, "the case must hold all three outcomes"
    ours = match_by_iou(
        objects, boxes, foreground=0.6, background=0.3, allow_low_quality_matches=allow_low_quality_matches
    )
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_without_objects_all_is_background(dims: int) -> None:
    none, boxes = torch.zeros((0, 2 * dims)), torch.rand((7, 2 * dims))
    assert (
        match_by_iou(none, boxes, foreground=0.7, background=0.3, allow_low_quality_matches=True).tolist()
        == [BACKGROUND] * 7
    )
    assert match_atss(none, boxes, cells_per_level=[7], per_cell=1).tolist() == [BACKGROUND] * 7


def test_without_boxes_there_are_no_matches() -> None:
    assert match_by_iou(
        OBJECTS, torch.zeros((0, 4)), foreground=0.7, background=0.3, allow_low_quality_matches=True
    ).shape == (0,)


def small_anchors(dims: int) -> tuple[Tensor, list[int]]:
    """Anchors of a 64-voxel image whose smallest is twice as wide as the objects below."""
    settings = AnchorSettings(sizes=tuple((s,) * dims for s in (8.0, 16.0, 32.0, 64.0, 128.0)), ratios=(1.0,))
    strides = tuple((s,) * dims for s in (4, 8, 16, 32, 64))
    maps = tuple((64 // s[0],) * dims for s in strides)
    levels = grid_anchors(settings, image=(64,) * dims, maps=maps, strides=strides, device=torch.device("cpu"))
    return torch.cat(levels), [len(level) for level in levels]


@pytest.mark.parametrize("dims", [2, 3])
def test_atss_serves_objects_that_fixed_thresholds_miss(dims: int) -> None:
    anchors, cells = small_anchors(dims)
    objects = torch.tensor([[20.0] * dims + [24.0] * dims, [40.0] * dims + [56.0] * dims])
    overlap = box_iou(objects, anchors)
    assert overlap[0].max() < 0.3, "the first object must be too small for fixed thresholds"
    assert not (
        match_by_iou(objects, anchors, foreground=0.5, background=0.3, allow_low_quality_matches=False) == 0
    ).any()
    matches = match_atss(objects, anchors, cells_per_level=cells, per_cell=1)
    assert matches.dtype == torch.int64
    assert set(matches.tolist()) == {BACKGROUND, 0, 1}
    for number in (0, 1):
        positives = matches == number
        assert overlap[number, positives].min() > 0
        assert (overlap[:, positives].argmax(dim=0) == number).all()
        assert overlap[number].argmax() in positives.nonzero()


def test_sample_sizes() -> None:
    matches = torch.tensor([0] * 10 + [BACKGROUND] * 50 + [IGNORED] * 40)
    positive, negative = sample(matches, count=16, positive_fraction=0.25)
    assert (len(positive), len(negative)) == (4, 12)
    assert (matches[positive] >= 0).all() and (matches[negative] == BACKGROUND).all()
    assert len(positive.unique()) == 4 and len(negative.unique()) == 12
    positive, negative = sample(matches, count=80, positive_fraction=0.5)  # too few positives: negatives fill up
    assert (len(positive), len(negative)) == (10, 50)


def test_sample_of_one_kind_or_none() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(x) for x in sample(none, count=8, positive_fraction=0.5)] == [0, 0]
    assert [len(x) for x in sample(torch.full((9,), BACKGROUND), count=4, positive_fraction=0.5)] == [0, 4]
    assert [len(x) for x in sample(torch.zeros(9, dtype=torch.int64), count=4, positive_fraction=0.5)] == [2, 0]
    assert [len(x) for x in sample(torch.full((9,), IGNORED), count=4, positive_fraction=0.5)] == [0, 0]


def test_sampling_follows_the_seed() -> None:
    matches = torch.tensor([0, BACKGROUND] * 100)

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat(sample(matches, count=20, positive_fraction=0.5))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_hard_negatives_are_those_that_look_like_objects() -> None:
    matches = torch.full((1000,), BACKGROUND)
    hardness = torch.arange(1000.0)
    _, negative = sample(matches, count=10, positive_fraction=0.5, hardness=hardness)
    assert len(negative) == 10
    assert int(negative.min()) >= 800  # the pool holds twenty times as many


def test_a_generator_decides_the_sample() -> None:
    matches = torch.cat([torch.zeros(50, dtype=torch.int64), torch.full((500,), BACKGROUND)])

    def drawn(seed: int) -> torch.Tensor:
        return torch.cat(sample(matches, count=20, positive_fraction=0.5, random=torch.Generator().manual_seed(seed)))

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))

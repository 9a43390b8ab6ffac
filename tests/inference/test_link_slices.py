"""Objects of slices become objects of the volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.inference.link_slices import link_slices
from medmaskrcnn.structures.mask import Mask

PLANE = (1, 10, 30)
Make = Callable[..., Detection]
Dense = Callable[..., np.ndarray]


def span(first: int, last: int) -> np.ndarray:
    dense = np.zeros(PLANE, bool)
    dense[0, 3:7, first:last] = True
    return dense


def test_one_object_through_all_slices(as_found: Make, as_dense: Dense) -> None:
    slices = [[as_found(span(5 + k, 11 + k), score=0.5 + 0.1 * k)] for k in range(4)]
    (linked,) = link_slices(slices, link_iou=0.2, gap=1)
    expected = np.concatenate([span(5 + k, 11 + k) for k in range(4)])
    np.testing.assert_array_equal(as_dense(linked, (4, 10, 30)), expected)
    assert linked.score == pytest.approx(0.75) and linked.box.tolist() == [0, 3, 5, 4, 7, 14]


def score_of(*slices: list[Detection]) -> float:
    (linked,) = link_slices(slices, link_iou=0.2, gap=1)
    return linked.score


def test_one_sure_slice_does_not_make_many_unsure_ones_sure(as_found: Make) -> None:
    unsure = [[as_found(span(5, 15), score=0.4)] for _ in range(9)]
    sure = [as_found(span(5, 15), score=0.99)]
    assert score_of(*unsure, sure) == pytest.approx((0.99 + 4 * 0.4) / 5)
    assert score_of(sure, *unsure) == pytest.approx((0.99 + 4 * 0.4) / 5)


def test_unsure_ends_do_not_make_a_sure_object_unsure(as_found: Make) -> None:
    end, middle = ([as_found(span(5, last), score=score)] for last, score in ((10, 0.3), (15, 0.9)))
    assert score_of(end, middle, middle, end) == pytest.approx(0.9)
    assert score_of(middle) == 0.9 and score_of(end) == 0.3


def test_slices_count_by_their_area_and_filled_ones_not(as_found: Make) -> None:
    large, small = [as_found(span(5, 25), score=0.5)], [as_found(span(5, 10), score=1.0)]
    assert score_of(large, small) == pytest.approx((5 * 1.0 + 7.5 * 0.5) / 12.5)  # half of 20 + 5 columns
    assert score_of(large, [], small) == score_of(large, small)


def test_a_missed_slice_is_filled_with_what_its_neighbours_share(as_found: Make, as_dense: Dense) -> None:
    slices = [[as_found(span(5, 12))], [], [as_found(span(8, 15))]]
    (linked,) = link_slices(slices, link_iou=0.2, gap=1)
    np.testing.assert_array_equal(
        as_dense(linked, (3, 10, 30)), np.concatenate([span(5, 12), span(8, 12), span(8, 15)])
    )


@pytest.mark.parametrize(("missing", "gap", "objects"), [(1, 0, 2), (1, 1, 1), (2, 1, 2), (2, 2, 1), (3, 2, 2)])
def test_gaps_up_to_the_setting_are_bridged(as_found: Make, missing: int, gap: int, objects: int) -> None:
    slices = [[], [as_found(span(5, 12))], *[[] for _ in range(missing)], [as_found(span(5, 12))], []]
    linked = link_slices(slices, link_iou=0.2, gap=gap)
    assert len(linked) == objects
    assert linked[0].mask.start[0] == 1 and linked[-1].mask.end[0] == missing + 3
    if objects == 1:
        assert linked[0].mask.n_voxels == 28 * (missing + 2)


def test_two_touching_tumours_stay_two(as_found: Make, as_dense: Dense) -> None:
    """Side by side and wandering: each slice's left one also overlaps the neighbour's right one."""
    lefts = [span(5 + k, 11 + k) for k in range(5)]
    rights = [span(11 + k, 17 + k) for k in range(5)]
    slices = [[as_found(b, score=0.9), as_found(a, score=0.8)] for a, b in zip(lefts, rights, strict=True)]
    linked = link_slices(slices, link_iou=0.05, gap=1)
    assert len(linked) == 2
    np.testing.assert_array_equal(as_dense(linked[0], (5, 10, 30)), np.concatenate(rights))
    np.testing.assert_array_equal(as_dense(linked[1], (5, 10, 30)), np.concatenate(lefts))


def test_objects_of_one_slice_are_never_one(as_found: Make) -> None:
    slices = [[as_found(span(5, 15)), as_found(span(6, 15))]]
    assert len(link_slices(slices, link_iou=0.1, gap=1)) == 2


def test_splitting_the_larger_branch_goes_on(as_found: Make) -> None:
    slices = [[as_found(span(5, 20))], [as_found(span(5, 9)), as_found(span(10, 20))]]
    linked = sorted(link_slices(slices, link_iou=0.2, gap=1), key=lambda f: f.mask.n_voxels)
    assert [f.mask.n_voxels for f in linked] == [16, 60 + 40]
    assert linked[0].mask.start == (1, 3, 5)


def test_joining_the_larger_branch_goes_on(as_found: Make) -> None:
    slices = [[as_found(span(5, 9)), as_found(span(10, 20))], [as_found(span(5, 20))]]
    linked = sorted(link_slices(slices, link_iou=0.2, gap=1), key=lambda f: f.mask.n_voxels)
    assert [f.mask.n_voxels for f in linked] == [16, 60 + 40]
    assert linked[0].mask.end[0] == 1


def test_too_little_overlap_starts_a_new_object(as_found: Make) -> None:
    slices = [[as_found(span(5, 11))], [as_found(span(9, 15))]]  # 2 of 10 columns shared
    assert len(link_slices(slices, link_iou=0.21, gap=1)) == 2
    assert len(link_slices(slices, link_iou=0.2, gap=1)) == 1
    apart = [[as_found(span(5, 11))], [as_found(span(11, 17))]]
    assert len(link_slices(apart, link_iou=0.0, gap=1)) == 2


def test_classes_are_kept_apart(as_found: Make) -> None:
    slices = [[as_found(span(5, 11), label=0)], [as_found(span(5, 11), label=1)], [as_found(span(5, 11), label=0)]]
    linked = link_slices(slices, link_iou=0.2, gap=1)
    assert sorted((f.label, f.mask.array.shape[0]) for f in linked) == [(0, 3), (1, 1)]


def test_empty_slices_and_masks(as_found: Make) -> None:
    assert link_slices([], link_iou=0.2, gap=1) == []
    assert link_slices([[], [], []], link_iou=0.2, gap=1) == []
    blank = Detection(0, 0.9, np.zeros(6, np.float32), Mask.empty())
    (linked,) = link_slices([[blank], [as_found(span(5, 11)), blank], []], link_iou=0.2, gap=1)
    assert linked.mask.start == (1, 3, 5) and linked.mask.array.shape == (1, 4, 6)


def test_objects_come_by_falling_score(as_found: Make) -> None:
    first = [as_found(span(20, 25), score=0.4), as_found(span(5, 11), score=0.7)]
    slices = [first, [as_found(span(20, 25), score=0.9)]]
    assert [round(f.score, 2) for f in link_slices(slices, link_iou=0.2, gap=1)] == [0.9, 0.7]

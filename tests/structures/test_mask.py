"""A cropped mask against pencil and dense arrays."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medmaskrcnn.structures.mask import Mask, corners

SHAPE = (9, 10, 11)
CORNER = (-3, -2, -4)  # of the dense arrays that everything is compared on: masks may lie outside of the grid
WIDE = (16, 16, 16)


def block(start: tuple[int, int, int], extent: tuple[int, int, int]) -> Mask:
    return Mask(start, np.ones(extent, bool))


places = st.tuples(st.integers(-3, 6), st.integers(-2, 6), st.integers(-4, 6))
extents = st.tuples(*[st.integers(0, 4)] * 3)
masks = st.builds(Mask, places, arrays.arrays(np.bool_, extents))
soft_masks = st.builds(Mask, places, arrays.arrays(np.uint8, extents))


def wide(mask: Mask) -> np.ndarray:
    """The mask on an array that holds every place that it can have, made by plain indexing."""
    whole = np.zeros(WIDE, mask.array.dtype)
    for index in np.ndindex(mask.array.shape):
        whole[tuple(np.add(index, mask.start) - CORNER)] = mask.array[index]
    return whole


def test_by_hand() -> None:
    mask = Mask(np.array([4, 0, 7]), np.array([[[0, 1, 1], [0, 0, 1]]], bool))
    assert mask.start == (4, 0, 7) and mask.end == (5, 2, 10)
    assert mask.window == (slice(4, 5), slice(0, 2), slice(7, 10))
    assert mask.box.tolist() == [4, 0, 7, 5, 2, 10] and mask.box.dtype == np.float32
    assert mask.n_voxels == 3 and not mask.is_empty
    assert mask.shifted((1, 0, -2)) == Mask((5, 0, 5), mask.array)
    tight = mask.tight()
    assert tight.start == (4, 0, 8) and tight.array.tolist() == [[[True, True], [False, True]]]
    assert tight.array.flags.c_contiguous
    assert mask.cropped((0, 1, 0), (9, 9, 20)) == Mask((4, 1, 7), np.array([[[0, 0, 1]]], bool))
    assert mask.cropped((0, 2, 0), (9, 9, 20)).array.shape == (0, 0, 0)
    assert mask.dense((1, 2, 2), (4, 0, 8)).tolist() == tight.array.tolist()


def test_union_and_intersection_by_hand() -> None:
    one, two = block((1, 1, 1), (1, 1, 2)), block((2, 1, 0), (1, 1, 1))
    both = one.union(two)
    assert both.start == (1, 1, 0) and both.array.astype(int).tolist() == [[[0, 1, 1]], [[1, 0, 0]]]
    assert one.overlap(two) == 0 and one.intersection(two).is_empty
    assert both.overlap(one) == 2 and both.intersection(one) == one
    assert both.cropped((0, 0, 2), (9, 9, 9)).overlap(one) == 1  # inside a window alone


def test_nothing_is_empty_and_tight() -> None:
    assert Mask.empty() == Mask((0, 0, 0), np.zeros((0, 0, 0), bool))
    nothing = Mask((1, 2, 3), np.zeros((3, 4, 5), bool))
    assert nothing.is_empty and nothing.n_voxels == 0
    assert nothing.tight() == Mask((1, 2, 3), np.zeros((0, 0, 0), bool))
    assert Mask.empty().union() == Mask.empty() and Mask.empty().union(block((3, 3, 3), (1, 1, 1))).n_voxels == 1


def test_it_cannot_be_changed_and_does_not_change_what_it_was_made_of() -> None:
    array = np.ones((1, 1, 2), bool)
    mask = Mask((0, 0, 0), array)
    with pytest.raises(ValueError, match="read-only"):
        mask.array[0, 0, 0] = False
    with pytest.raises(FrozenInstanceError):
        mask.start = (1, 1, 1)  # type: ignore[misc]
    assert array.flags.writeable


@pytest.mark.parametrize("array", [np.ones((1, 1), bool), np.ones((1, 1, 1)), np.ones((1, 1, 1), np.int64)])
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be boolean"):
        Mask((0, 0, 0), array)


def test_equal_masks_have_one_place_and_one_crop() -> None:
    assert block((1, 1, 1), (2, 1, 1)) == block((1, 1, 1), (2, 1, 1))
    assert block((1, 1, 1), (2, 1, 1)) != block((1, 1, 2), (2, 1, 1))
    assert block((1, 1, 1), (2, 1, 1)) != block((1, 1, 1), (1, 1, 2))
    assert block((1, 1, 1), (2, 1, 1)) != Mask((1, 1, 1), np.array([[[True]], [[False]]]))


@given(masks)
def test_tight_loses_nothing_and_its_planes_hold_voxels(mask: Mask) -> None:
    tight = mask.tight()
    assert np.array_equal(wide(tight), wide(mask)) and tight.n_voxels == wide(mask).sum()
    assert tight.is_empty == (not wide(mask).any()) == (tight.array.size == 0)
    for axis in range(3 if tight.array.size else 0):
        assert tight.array.take([0, -1], axis).any(axis=tuple(a for a in range(3) if a != axis)).all()


@given(st.one_of(masks, soft_masks), places, extents)
def test_cropped_and_dense(mask: Mask, low: tuple[int, ...], extent: tuple[int, ...]) -> None:
    inside = np.zeros(WIDE, bool)
    inside[tuple(slice(a - c, a - c + n) for a, c, n in zip(low, CORNER, extent, strict=True))] = True
    part = mask.cropped(low, np.add(low, extent))
    assert np.array_equal(wide(part), np.where(inside, wide(mask), 0))
    assert np.array_equal(mask.dense(WIDE, CORNER), wide(mask))
    window = wide(mask)[tuple(slice(a - c, a - c + n) for a, c, n in zip(low, CORNER, extent, strict=True))]
    assert np.array_equal(mask.dense(extent, low), window)


@given(masks, masks, masks)
def test_sets_of_voxels(one: Mask, two: Mask, three: Mask) -> None:
    a, b, c = wide(one), wide(two), wide(three)
    assert np.array_equal(wide(one.union(two, three)), a | b | c)
    assert np.array_equal(wide(one.intersection(two)), a & b)
    assert one.overlap(two) == two.overlap(one) == np.count_nonzero(a & b)
    left = one.difference(two)
    assert np.array_equal(wide(left), a & ~b) and left == left.tight()


@given(soft_masks, soft_masks)
def test_soft_masks(one: Mask, two: Mask) -> None:
    a, b = wide(one), wide(two)
    assert np.array_equal(wide(one.union(two)), np.maximum(a, b))
    assert np.array_equal(wide(one.intersection(two)), np.minimum(a, b))
    assert one.overlap(two) == np.count_nonzero(np.minimum(a, b))


@given(masks, st.tuples(*[st.integers(-2, 2)] * 3))
def test_shifted(mask: Mask, offset: tuple[int, int, int]) -> None:
    moved = mask.shifted(offset)
    assert np.array_equal(np.argwhere(moved.array) + moved.start, np.argwhere(mask.array) + mask.start + offset)


def test_corners_of_many() -> None:
    starts, ends = corners([block((1, 2, 3), (2, 1, 4)), Mask.empty()])
    assert starts.tolist() == [[1, 2, 3], [0, 0, 0]] and ends.tolist() == [[3, 3, 7], [0, 0, 0]]
    assert [part.shape for part in corners([])] == [(0, 3), (0, 3)]

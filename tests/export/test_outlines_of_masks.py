"""Outlines: the mask comes back from them by either filling rule, holes and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medmaskrcnn.export.contours import outlines

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose centre is inside by the even-odd rule, and by the winding number, each polygon by itself."""
    odd, winding = np.zeros(shape, int), np.zeros(shape, bool)
    columns = np.arange(shape[1])
    for polygon in polygons:
        turns = np.zeros(shape, int)
        for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            for row in range(shape[0]):
                if (r0 <= row) != (r1 <= row):
                    hits = columns >= c0 + (row - r0) / (r1 - r0) * (c1 - c0)
                    turns[row] += hits * (1 if r1 > r0 else -1)
                    odd[row] += hits
        winding |= turns != 0
    return odd % 2 == 1, winding


def area(polygon: np.ndarray) -> float:
    r, c = polygon.T
    return abs(float(np.sum(c * np.roll(r, -1) - np.roll(c, -1) * r))) / 2


@given(MASKS)
def test_filling_gives_the_mask_back(mask: np.ndarray) -> None:
    odd, winding = filled(outlines(mask), mask.shape)
    np.testing.assert_array_equal(odd, mask)
    np.testing.assert_array_equal(winding, mask)


@given(MASKS)
def test_a_turned_mask_has_as_large_outlines(mask: np.ndarray) -> None:
    assert sum(map(area, outlines(mask))) == pytest.approx(sum(map(area, outlines(np.rot90(mask)))))


def test_a_square_by_hand() -> None:
    (polygon,) = outlines(np.ones((2, 2), bool))
    corners = {(-0.5, 0), (-0.5, 1), (0, 1.5), (1, 1.5), (1.5, 1), (1.5, 0), (1, -0.5), (0, -0.5)}
    assert {tuple(p) for p in polygon} == corners
    assert len(polygon) == len(corners)
    assert area(polygon) == 4 - 0.5


def test_a_hole_is_part_of_its_outline() -> None:
    mask = np.ones((5, 7), bool)
    mask[1, 1] = mask[2, 3:5] = False
    (polygon,) = outlines(mask)
    assert area(polygon) == mask.sum() - 0.5 + 2 * 0.5  # half a pixel less outside, half a pixel more in each hole
    assert all(np.abs(a - b).max() > 0 for a, b in zip(polygon, np.roll(polygon, 1, axis=0), strict=True))


def test_parts_are_outlines_of_their_own() -> None:
    mask = np.zeros((6, 6), bool)
    mask[:2, :2] = mask[4:, 4:] = mask[2, 2] = True  # the last touches the first at a corner
    assert len(outlines(mask)) == 3


def test_an_island_in_a_hole() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert len(outlines(mask)) == 2


def test_straight_edges_have_no_points_within() -> None:
    (polygon,) = outlines(np.ones((100, 200), bool))
    assert len(polygon) == 8


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((4, 4), bool)) == []

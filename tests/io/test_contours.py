"""Polygons become voxels: by hand, against a slow reference, and what several outlines mean together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medmaskrcnn.io.labels.contours import Contour, fill_plane, fill_polygon, fill_stack


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [low, high], [high, high], [high, low]])


def circle(radius: float, centre: float, n: int = 180) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return centre + radius * np.column_stack([np.sin(angle), np.cos(angle)])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_a_triangle_by_hand():
    # Rows 0.5..3.5; at row r the triangle spans columns 0.5 to 0.5 + (r - 0.5): centres 1, then 1 and 2, then 1 to 3.
    triangle = np.array([[0.5, 0.5], [4.5, 0.5], [4.5, 4.5]])
    expected = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 1],
        ],
        dtype=bool,
    )
    # At row r the slanted edge is at column r: its own centre lies on it, the row's last, and counts as outside.
    expected[range(5), range(5)] = False
    np.testing.assert_array_equal(fill_polygon(triangle, (5, 5)), expected)


def test_neighbours_that_share_an_edge_share_no_pixel():
    left = np.array([[-0.5, -0.5], [-0.5, 3], [6.5, 3], [6.5, -0.5]])
    right = np.array([[-0.5, 3], [-0.5, 8], [6.5, 8], [6.5, 3]])
    a, b = fill_polygon(left, (6, 8)), fill_polygon(right, (6, 8))
    assert not (a & b).any()
    assert (a | b).all()


def slow_fill(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd by casting a ray from each pixel to the left, one pixel at a time."""
    mask = np.zeros(shape, bool)
    for r, c in np.ndindex(shape):
        for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if (r0 < r) != (r1 < r):
                column = c0 + (r - r0) / (r1 - r0) * (c1 - c0)
                assume(abs(column - c) > 1e-3)  # no centre on an edge: what becomes of those is a convention
                mask[r, c] ^= column < c
    return mask


coordinate = st.integers(-30, 110).map(lambda i: i / 10 + 0.037)  # no corner on a pixel's centre


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_polygon_is_filled_as_the_slow_reference_does(points):
    points = np.array(points)
    np.testing.assert_array_equal(fill_polygon(points, (8, 9)), slow_fill(points, (8, 9)))


def test_an_outline_far_outside_of_the_image_is_cut_off():
    assert fill_polygon(square(-1e12, 1e12), (4, 5)).all()
    assert not fill_polygon(square(100, 200), (4, 5)).any()


def test_a_keyhole_leaves_its_hole():
    outer, inner = square(0.5, 9.5), square(3.5, 6.5)[::-1]
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    expected = fill_polygon(outer, (11, 11)) & ~fill_polygon(inner, (11, 11))
    assert expected.sum() == 81 - 9
    np.testing.assert_array_equal(fill_polygon(keyhole, (11, 11)), expected)


@pytest.mark.parametrize("exclusive", [False, True])
def test_an_outline_inside_another_is_a_hole_and_one_inside_the_hole_is_not(exclusive):
    parts = [Contour(0, square(*ends), exclusive) for ends in ((3.5, 6.5), (0.5, 9.5), (4.5, 5.5))]
    mask, _ = fill_plane(parts, (11, 11))
    assert mask.sum() == 81 - 9 + 1
    assert mask[5, 5]
    assert not mask[4, 4]


def test_overlapping_outlines_are_united_unless_they_exclude_one_another():
    pair = [square(0.5, 4.5), square(2.5, 6.5)]
    united, notes = fill_plane([Contour(0, p) for p in pair], (8, 8))
    assert united.sum() == 16 + 16 - 4
    assert "united" in notes[0]
    excluded, _ = fill_plane([Contour(0, p, True) for p in pair], (8, 8))
    assert excluded.sum() == 16 + 16 - 8


def test_the_same_outline_twice_counts_once():
    mask, notes = fill_plane([Contour(0, square(0.5, 4.5))] * 2, (8, 8))
    assert mask.sum() == 16
    assert "twice" in notes[0]


@pytest.mark.parametrize("off", [-0.5, -0.49, 0.2, 0.499, 0.5])
def test_planes_up_to_half_a_slice_off_go_to_the_nearest_slice(off):
    contours = [Contour(k + off, square(0.5, 1.5 + k)) for k in range(2, 6)]
    stack, _ = fill_stack(contours, (10, 8, 8))
    shift = -1 if off == -0.5 else 0  # half way between two: the lower
    assert [int(n) for n in stack.sum(axis=(1, 2))] == [
        int((k - shift + 1) ** 2) if 2 <= k - shift < 6 else 0 for k in range(10)
    ]


def test_planes_finer_than_slices_give_each_slice_its_nearest():
    contours = [Contour(k / 4, square(0.5, 1.5 + k // 4)) for k in range(8, 17)]
    stack, _ = fill_stack(contours, (6, 8, 8))
    assert [int(n) for n in stack.sum(axis=(1, 2))] == [0, 0, 9, 16, 25, 0]


@pytest.mark.parametrize("step", [1.25, 2.0, 2.5, 3.0])
def test_a_ball_outlined_between_slices_is_whole(step):
    radius, centre = 14.0, 20.0
    planes = np.arange(centre - radius + step / 2, centre + radius, step)
    contours = [Contour(z, circle(np.sqrt(radius**2 - (z - centre) ** 2), centre)) for z in planes]
    stack, notes = fill_stack(contours, (41, 41, 41))
    ball = ((np.indices(stack.shape) - centre) ** 2).sum(axis=0) <= radius**2
    assert dice(stack, ball) > 0.97
    assert any("interpolated" in n for n in notes)


def test_a_gap_stays_a_gap():
    contours = [Contour(k, square(0.5, 3.5)) for k in (1, 2, 3, 6, 7)]
    stack, notes = fill_stack(contours, (10, 5, 5))
    assert [bool(s.any()) for s in stack] == [False, True, True, True, False, False, True, True, False, False]
    assert notes == ()


def test_a_gap_between_sparse_planes_stays_one_too():
    contours = [Contour(k, square(0.5, 3.5)) for k in (1, 3, 5, 11, 13)]
    stack, _ = fill_stack(contours, (16, 5, 5))
    assert [k for k in range(16) if stack[k].any()] == [1, 2, 3, 4, 5, 11, 12, 13]


def test_an_outline_that_zigzags_across_the_image_needs_little_memory():
    n = 6000
    points = np.column_stack([np.tile([-1.0, 513.0], n // 2), np.linspace(0, 511, n)])
    assert fill_polygon(points, (512, 512)).shape == (512, 512)

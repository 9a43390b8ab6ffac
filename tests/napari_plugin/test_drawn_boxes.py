"""Rectangles on the screen as boxes in the scan, by pencil."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask
from napari_medmaskrcnn.layers.display_frame import display_frame
from napari_medmaskrcnn.layers.drawn_boxes import deepened, drawn_box, one_slice_axis, to_region, usual_depth

UP = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
FRAME = display_frame(Grid((10, 20, 30), UP))  # shown slice i is stored slice 9 - i
ALL = (0, 1, 2)


def rectangle(at: float, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    return np.array([[at, low[0], low[1]], [at, low[0], high[1]], [at, high[0], high[1]], [at, high[0], low[1]]])


def test_a_rectangle_is_a_box_of_one_slice():
    box = drawn_box([rectangle(2, (3.5, 4.5), (7.5, 11.5))], FRAME, ALL)
    assert box == pytest.approx((7, 4, 5, 8, 8, 12))
    assert one_slice_axis(box) == 0
    assert to_region(box, (10, 20, 30)) == ((7, 4, 5), (8, 8, 12))
    assert to_region(box, (10, 20, 30), whole_axis=0) == ((0, 4, 5), (10, 8, 12))


def test_two_rectangles_span_the_slices_between_them():
    shapes = [rectangle(2, (3.5, 4.5), (7.5, 11.5)), rectangle(5, (2.5, 6.5), (6.5, 12.5))]
    box = drawn_box(shapes, FRAME, ALL)
    assert box == pytest.approx((4, 3, 5, 8, 8, 13)) and one_slice_axis(box) is None


def test_what_lies_outside_is_cut_off_or_nothing():
    assert drawn_box([rectangle(0, (-9, -9), (2.5, 99))], FRAME, ALL) == pytest.approx((9, 0, 0, 10, 3, 30))
    assert drawn_box([rectangle(0, (40, 40), (50, 50))], FRAME, ALL) is None
    assert drawn_box([rectangle(25, (1, 1), (5, 5))], FRAME, ALL) is None
    assert drawn_box([], FRAME, ALL) is None


def test_a_picture_has_no_slider():
    frame = display_frame(Grid((1, 20, 30), UP))
    flat = rectangle(0, (3.5, 4.5), (7.5, 11.5))[:, 1:]
    assert drawn_box([flat], frame, (1, 2)) == pytest.approx((0, 4, 5, 1, 8, 12))


def test_a_box_of_one_slice_gets_the_depth_of_its_width():
    box = (7.0, 4.0, 5.0, 8.0, 14.0, 15.0)
    assert usual_depth(box, 0, (2.0, 1.0, 1.0)) == 5
    assert deepened(box, 0, 5, (10, 20, 30)) == (5, 4, 5, 10, 14, 15)
    assert deepened(box, 0, 4, (10, 20, 30)) == (6, 4, 5, 10, 14, 15)
    assert deepened(box, 0, 99, (10, 20, 30)) == (0, 4, 5, 10, 14, 15)


def test_masks_and_coordinates_go_there_and_back():
    frame = display_frame(Grid((10, 20, 30), UP[:, [2, 0, 1, 3]]))
    mask = Mask((1, 2, 5), np.random.default_rng(0).random((3, 7, 1)) < 0.5)
    shown = frame.mask_to_display(mask)
    assert frame.mask_to_stored(shown) == mask
    np.testing.assert_array_equal(shown.dense(frame.shape), frame.to_display(mask.dense((10, 20, 30))))
    points = np.array([[0.0, 0, 0], [3.5, 7, 29]])
    np.testing.assert_allclose(frame.coordinate_to_stored(frame.coordinate_to_display(points)), points)

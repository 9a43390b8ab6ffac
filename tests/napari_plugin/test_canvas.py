"""A session in a real viewer: what is painted, what a brush stroke and a click do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.mask import Mask

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (8, 24, 30)
BLOCKS = [
    ("liver", 0.9, (0, 1, 1), (4, 10, 10)),
    ("tumour", 0.8, (1, 3, 3), (2, 4, 4)),
    ("tumour", 0.7, (1, 5, 5), (2, 4, 4)),  # overlaps the one before
    ("tumour", 0.3, (5, 12, 20), (2, 3, 3)),
]


@pytest.fixture
def drawn(make_napari_viewer, make_result):
    from napari_medmaskrcnn.core.review_model import ReviewModel
    from napari_medmaskrcnn.layers.canvas import ResultCanvas

    viewer = make_napari_viewer()
    review = ReviewModel(*make_result(BLOCKS, SHAPE))
    canvas = ResultCanvas(viewer, review)
    yield viewer, review, canvas
    canvas.close()


def stored(canvas, layer) -> np.ndarray:
    return canvas.frame.to_stored(np.asarray(layer.data))


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_each_class_has_a_layer_and_nothing_that_overlaps_is_lost(drawn):
    viewer, _, canvas = drawn
    assert names(viewer) == ["liver", "tumour", "tumour (overlapping 2)", "boxes"]
    liver, first, second, _ = viewer.layers
    assert np.count_nonzero(stored(canvas, liver) == 1) == 400
    assert np.count_nonzero(stored(canvas, first) == 2) == np.count_nonzero(stored(canvas, second) == 3) == 32
    assert stored(canvas, first)[1, 3, 3] == 2 and stored(canvas, second)[2, 8, 8] == 3


def test_the_threshold_paints_and_erases_only_what_comes_and_goes(drawn):
    viewer, review, canvas = drawn
    review.set_threshold(0.2)
    assert stored(canvas, viewer.layers["tumour"])[5, 12, 20] == 4
    review.set_threshold(0.75)
    assert sorted(np.unique(viewer.layers["tumour"].data)) == [0, 2]
    assert not viewer.layers["tumour (overlapping 2)"].data.any()
    review.set_threshold(0.5)
    assert np.count_nonzero(stored(canvas, viewer.layers["tumour (overlapping 2)"]) == 3) == 32


def test_a_layer_for_what_has_no_room_waits_until_it_is_asked_for(make_napari_viewer, make_result):
    from napari_medmaskrcnn.core.review_model import ReviewModel
    from napari_medmaskrcnn.layers.canvas import ResultCanvas

    viewer = make_napari_viewer()
    review = ReviewModel(*make_result(BLOCKS, SHAPE, 0.75))
    canvas = ResultCanvas(viewer, review)
    unsettled = []
    canvas.unsettled.connect(lambda: unsettled.append(1))
    assert names(viewer) == ["liver", "tumour", "boxes"]
    review.set_threshold(0.5)
    assert names(viewer) == ["liver", "tumour", "boxes"] and unsettled == [1]
    canvas.settle()
    assert names(viewer) == ["liver", "tumour", "tumour (overlapping 2)", "boxes"]
    assert np.count_nonzero(viewer.layers["tumour (overlapping 2)"].data) == 32
    canvas.close()
    assert names(viewer) == []


def test_edits_and_undo_are_painted(drawn):
    viewer, review, canvas = drawn
    review.relabel([2], "liver")
    assert "liver (overlapping 2)" in names(viewer)  # the tumour lies in the liver, which is now of its class
    review.undo()
    assert np.count_nonzero(stored(canvas, viewer.layers["tumour"]) == 2) == 32
    review.delete([1])
    assert not viewer.layers["liver"].data.any()
    review.undo()
    assert np.count_nonzero(viewer.layers["liver"].data) == 400


def test_a_brush_stroke_changes_the_instance_and_is_undone_by_one_key(drawn):
    _, review, canvas = drawn
    layer = canvas.labels_layer(2)
    before = review.items[2].mask.n_voxels
    layer.selected_label = 2
    layer.brush_size = 3
    layer.preserve_labels = False
    at = canvas.frame.coordinate_to_display(np.array([1.5, 16.5, 16.5]))
    layer.paint(at, 2)
    grown = review.items[2]
    assert grown.mask.n_voxels > before and grown.changed and review.undo_text == "paint"
    assert np.count_nonzero(stored(canvas, layer) == 2) == grown.mask.n_voxels
    assert grown.size.volume_unit3 == grown.mask.n_voxels * 2.0
    review.undo()
    assert review.items[2].mask.n_voxels == before == np.count_nonzero(stored(canvas, layer) == 2)


def test_painting_over_another_instance_takes_its_voxels(drawn):
    _, review, canvas = drawn
    review.set_threshold(0.2)
    layer = canvas.labels_layer(4)
    assert layer is canvas.labels_layer(2)
    at = canvas.frame.coordinate_to_display(np.array([5.5, 13.5, 21.5]))
    layer.brush_size = 2
    layer.preserve_labels = False
    layer.paint(at, 2)
    assert review.items[4].mask.n_voxels < 18 and review.items[2].mask.n_voxels > 32


def test_a_new_value_is_a_new_instance_and_never_another_layer_s(drawn):
    viewer, review, canvas = drawn
    layer = viewer.layers["tumour"]
    layer.brush_size = 1
    layer.paint(canvas.frame.coordinate_to_display(np.array([7.5, 20.5, 2.5])), 1)  # 1 is the liver, elsewhere
    assert review.items[1].mask.n_voxels == 400
    assert review.items[5].class_name == "tumour" and review.items[5].mask.start == (7, 20, 2)
    assert review.is_in(5)


def test_a_layer_that_the_user_removes_hides_its_instances(drawn):
    viewer, review, canvas = drawn
    viewer.layers.remove(viewer.layers["liver"])
    assert review.hidden == {1} and review.keys_in() == [1, 2, 3]
    review.set_hidden([1], hidden=False)
    canvas.settle()
    assert "liver" in names(viewer)


def test_flying_to_an_instance_moves_slider_and_camera(drawn):
    viewer, _, canvas = drawn
    canvas.center_on(1)
    # Stored slices 0..3 of 8 count up, 2 mm apart, the first at S = 0: I from -6 to 0 mm.
    assert -6 <= viewer.dims.point[0] <= 0
    np.testing.assert_allclose(getattr(viewer, "scene", viewer).camera.center[-2:], (5.5, 5.5))


def test_boxes_follow_the_slider_and_name_what_they_hold(drawn):
    viewer, _, canvas = drawn
    boxes = viewer.layers["boxes"]
    viewer.dims.set_point(0, -2.0)  # stored slice 1: all three
    assert sorted(boxes.features["label"]) == ["liver 0.90", "tumour 0.70", "tumour 0.80"]
    viewer.dims.set_point(0, -6.0)  # stored slice 3: the liver alone
    assert list(boxes.features["label"]) == ["liver 0.90"]
    corners = canvas.frame.coordinate_to_stored(boxes.data[0])
    np.testing.assert_allclose(corners.min(axis=0)[1:], [1, 1])
    np.testing.assert_allclose(corners.max(axis=0)[1:], [11, 11])
    viewer.dims.set_point(0, -14.0)  # stored slice 7: nothing
    assert len(boxes.data) == 0
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 4.0)
    assert "liver 0.90" in list(boxes.features["label"])


def test_many_instances_take_wider_numbers(make_napari_viewer, make_result):
    from napari_medmaskrcnn.core.review_model import ReviewModel
    from napari_medmaskrcnn.layers.canvas import ResultCanvas

    blocks = [("nucleus", 0.9, (0, r, c), (1, 1, 1)) for r in range(0, 24, 2) for c in range(0, 30, 2)]
    review = ReviewModel(*make_result(blocks, (1, 24, 30)))
    canvas = ResultCanvas(make_napari_viewer(), review)
    layer = canvas.labels_layer(180)
    assert layer.data.dtype == np.uint8 and layer.data.ndim == 2
    review.repaint({255: ("nucleus", Mask((0, 3, 1), np.ones((1, 1, 1), bool)))})
    key = review.add("nucleus", Mask((0, 1, 1), np.ones((1, 1, 1), bool)))
    assert key == 256 and canvas.labels_layer(key).data.dtype == np.uint16
    assert canvas.labels_layer(key).data[1, 1] == key
    canvas.close()


def test_a_picture_is_drawn_flat(make_napari_viewer, make_result):
    from dataclasses import replace

    from napari_medmaskrcnn.core.review_model import ReviewModel
    from napari_medmaskrcnn.layers.canvas import ResultCanvas

    volume, result = make_result([("nucleus", 0.9, (0, 2, 3), (1, 4, 5))], (1, 24, 30))
    grid = pixel_grid((1, 24, 30))
    flat = replace(result, candidates=replace(result.candidates, grid=grid))
    viewer = make_napari_viewer()
    canvas = ResultCanvas(viewer, ReviewModel(replace(volume, grid=grid), flat))
    assert viewer.layers["nucleus"].data.shape == (24, 30)
    assert len(viewer.layers["boxes"].data) == 1
    canvas.center_on(1)
    canvas.close()


def test_further_layers_go_when_nothing_is_left_on_them(drawn):
    viewer, review, canvas = drawn
    review.set_threshold(0.75)
    canvas.settle()
    assert names(viewer) == ["liver", "tumour", "boxes"] and review.hidden == set()
    review.set_threshold(0.5)
    canvas.settle()
    assert names(viewer) == ["liver", "tumour", "tumour (overlapping 2)", "boxes"]
    review.set_threshold(1.0)
    canvas.settle()
    assert names(viewer) == ["liver", "tumour", "boxes"]  # a class keeps its first layer

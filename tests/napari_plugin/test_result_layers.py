"""A result as layer data, in numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.mask import Mask
from napari_medmaskrcnn.layers import result_layers
from napari_medmaskrcnn.layers.result_layers import box_rectangles, result_to_layers

CLASSES = ("liver", "spleen", "tumour")
SIZE = Measurement("mm", 1500.0, 12.0, 8.0, (0.0, 0.0, 0.0), 40.0, 0.0, 80.0)
RECORD = RunRecord("medmaskrcnn 0", "m", "0" * 64, "CC0", "cpu", "fp32")

Block = tuple[int, float, tuple[int, int, int], tuple[int, int, int]]

UP = Grid((4, 6, 8), np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]))
"""Slices run up, 2 mm apart; rows to the back, columns to the left, 1 mm."""


def make_result(objects: list[Block], grid: Grid = UP) -> CaseResult:
    """Solid blocks: (class, score, first voxel, extent)."""
    instances = Instances(
        grid=grid,
        class_names=CLASSES,
        labels=np.array([o[0] for o in objects], np.int64),
        scores=np.array([o[1] for o in objects], np.float32),
        boxes=np.array([[*o[2], *np.add(o[2], o[3])] for o in objects], np.float32).reshape(-1, 6),
        masks=tuple(Mask(o[2], np.ones(o[3], bool)) for o in objects),
    )
    return CaseResult(instances, 0.5, (SIZE,) * len(objects), RECORD)


def test_a_tumour_in_a_liver_lies_on_a_layer_of_its_own():
    result = make_result([(2, 0.95, (1, 2, 3), (1, 1, 2)), (0, 0.9, (0, 1, 1), (3, 4, 5))])
    layers = result_to_layers(result)
    assert [(layer[1]["name"], layer[2]) for layer in layers] == [
        ("liver", "labels"), ("tumour", "labels"), ("boxes", "shapes"),
    ]  # fmt: skip
    liver, tumour = layers[0][0], layers[1][0]
    assert liver.shape == (4, 6, 8)
    assert (np.count_nonzero(liver == 1), np.count_nonzero(tumour == 2)) == (60, 2)
    # Stored slice 1 of 4, counted up, is the slice 2 counted down.
    assert tumour[2, 2, 3] == tumour[2, 2, 4] == 2
    assert layers[0][1]["scale"] == (2.0, 1.0, 1.0)
    assert layers[0][1]["features"] == {
        "index": [1], "class": ["liver"], "score": [0.9], "volume_mm3": [1500.0], "longest_axial_diameter_mm": [12.0],
    }  # fmt: skip


def test_overlapping_instances_of_one_class_take_a_further_layer():
    first: Block = (1, 0.9, (0, 0, 0), (2, 2, 2))
    result = make_result([first, (1, 0.8, (1, 1, 1), (2, 2, 2)), (1, 0.7, (3, 4, 4), (1, 1, 1))])
    layers = result_to_layers(result)
    assert [layer[1]["name"] for layer in layers] == ["spleen", "spleen (overlapping 2)", "boxes"]
    assert sorted(np.unique(layers[0][0])) == [0, 1, 3]
    assert np.count_nonzero(layers[0][0] == 1) == np.count_nonzero(layers[1][0] == 2) == 8


def test_candidates_below_the_threshold_are_not_shown():
    layers = result_to_layers(make_result([(0, 0.9, (0, 0, 0), (1, 1, 1)), (1, 0.4, (2, 2, 2), (1, 1, 1))]))
    assert [layer[1]["name"] for layer in layers] == ["liver", "boxes"]


def test_boxes_are_rectangles_on_the_slices_of_the_instance():
    layers = result_to_layers(make_result([(0, 0.9, (0, 1, 2), (2, 3, 4))]))
    rectangles, settings, _ = layers[-1]
    # Stored slices 0 and 1 are slices 3 and 2 counted from the head; edges lie half a voxel outside the centres.
    assert [r[0, 0] for r in rectangles] == [2.0, 3.0]
    np.testing.assert_allclose(rectangles[0][:, 1:], [[0.5, 1.5], [0.5, 5.5], [3.5, 5.5], [3.5, 1.5]])
    assert settings["features"]["class"] == ["liver", "liver"]
    assert settings["scale"] == (2.0, 1.0, 1.0)


def test_so_many_boxes_that_napari_would_stall_are_left_out(monkeypatch):
    monkeypatch.setattr(result_layers, "MAX_RECTANGLES", 1)
    layers = result_to_layers(make_result([(0, 0.9, (0, 1, 2), (2, 3, 4))]))
    assert [layer[2] for layer in layers] == ["labels"]


def test_a_flat_picture_has_flat_layers():
    picture = pixel_grid((1, 6, 8))
    labels, boxes = result_to_layers(make_result([(0, 0.9, (0, 1, 2), (1, 3, 4))], picture))
    assert labels[0].shape == (6, 8)
    assert boxes[0][0].shape == (4, 2)
    assert labels[1]["units"] == ("pixel", "pixel")


def test_box_rectangles_in_2d_by_pencil():
    (outline,) = box_rectangles(np.array([0.5, 1.5]), np.array([3.5, 5.5]))
    np.testing.assert_allclose(outline, [[0.5, 1.5], [0.5, 5.5], [3.5, 5.5], [3.5, 1.5]])


def test_nothing_found_gives_no_layer():
    assert result_to_layers(CaseResult(empty_instances(UP, CLASSES), 0.5, (), RECORD)) == []


def test_results_outside_the_model_s_domain_say_so_in_every_name():
    result = make_result([(0, 0.9, (0, 0, 0), (1, 1, 1))])
    stamped = replace(result, record=replace(RECORD, out_of_domain=True))
    assert all("out of domain" in layer[1]["name"] for layer in result_to_layers(stamped))


@pytest.mark.parametrize(("n", "dtype"), [(3, np.uint8), (300, np.uint16)])
def test_the_labels_type_holds_every_id(n, dtype):
    grid = Grid((1, 1, 400), np.eye(4))
    layers = result_to_layers(make_result([(0, 0.9, (0, 0, i), (1, 1, 1)) for i in range(n)], grid))
    assert layers[0][0].dtype == dtype
    assert layers[0][0].max() == n

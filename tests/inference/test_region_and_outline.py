"""A part of a scan, and an object in a box that is given: both lie where the whole scan's walk puts them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmaskrcnn.errors import UnsuitableScanError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.segment_box import segment_box
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

Make = Callable[..., LoadedModel]
Blobs = Callable[..., Volume]
SHAPE = (10, 40, 36)
SMALL = (10, 32, 30)
TURNED = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [-2.0, 0, 0, 0], [0, 0, 0, 1]])  # every axis against the model's


def dense(found, i: int) -> np.ndarray:
    return found.masks[i].dense(found.grid.shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_region_as_large_as_the_scan_is_the_scan(tiny_model: Make, make_blobs: Blobs, dims: int) -> None:
    volume, model = make_blobs(SHAPE), tiny_model(dims, detections_per_img=3)
    whole = segment(volume, model)
    part = segment(volume, model, region=((0, 0, 0), SHAPE))
    np.testing.assert_array_equal(part.candidates.boxes, whole.candidates.boxes)
    assert part.measurements == whole.measurements
    assert part.record.settings["region"] == [[0, 0, 0], list(SHAPE)] and "region" not in whole.record.settings


@pytest.mark.parametrize("affine", [None, TURNED], ids=["as the network's", "turned"])
def test_one_slice_gives_what_the_whole_walk_finds_there(tiny_model: Make, make_blobs: Blobs, affine) -> None:
    """A 2D model without neighbours sees each slice for itself: the walk over one is its share of the walk."""
    volume, model = make_blobs(SHAPE, affine), tiny_model(2, detections_per_img=3, inference={"link_iou": 1.0})
    region = ((3, 0, 0), (4, *SHAPE[1:]))
    part = segment(volume, model, region=region).candidates
    whole = segment(volume, model).candidates
    here = [dense(whole, i)[3] for i in range(len(whole)) if dense(whole, i)[3].any()]
    assert part.grid == volume.grid and len(part) > 0
    for i in range(len(part)):
        mask = dense(part, i)
        assert mask[3].any() and any(np.array_equal(mask[3], other) for other in here)


def test_what_has_no_voxel_in_the_region_is_left_out(tiny_model: Make, make_blobs: Blobs) -> None:
    volume, model = make_blobs(SMALL), tiny_model(3)
    whole = segment(volume, model).candidates  # the window around a region of so small a scan is all of it
    masks = [dense(whole, i) for i in range(len(whole))]
    voxels = np.array([np.argwhere(mask)[0] for mask in masks])
    low = next(v for v in voxels if not all(mask[tuple(v)] for mask in masks))
    part = segment(volume, model, region=(tuple(low), tuple(low + 1))).candidates
    expected = [mask for mask in masks if mask[tuple(low)]]
    assert len(part) == len(expected) < len(whole)
    assert all(np.array_equal(dense(part, i), expected[i]) for i in range(len(part)))


@pytest.mark.parametrize("region", [((0, 0, 0), (11, 40, 36)), ((3, 5, 5), (3, 9, 9)), ((-1, 0, 0), (4, 4, 4))])
def test_regions_outside_of_the_scan_are_refused(tiny_model: Make, make_blobs: Blobs, region) -> None:
    with pytest.raises(ValueError, match=r"region must lie in the scan of shape \(10, 40, 36\)"):
        segment(make_blobs(SHAPE), tiny_model(2), region=region)


@pytest.mark.parametrize("affine", [None, TURNED], ids=["as the network's", "turned"])
def test_a_found_box_outlines_the_same_object_in_3d(tiny_model: Make, make_blobs: Blobs, affine) -> None:
    """The scan is one tile: the mask head sees the same features, so the mask is the walk's to the voxel."""
    volume, model = make_blobs(SMALL, affine), tiny_model(3)
    found = segment(volume, model).candidates
    for i in range(3):
        name = found.class_names[found.labels[i]]
        again = segment_box(volume, model, found.boxes[i].tolist(), name)
        assert len(again) == 1 and again.scores[0] == 1 and again.grid == volume.grid
        assert again.class_names[again.labels[0]] == name
        assert (dense(again, 0) != dense(found, i)).sum() <= 0.02 * dense(found, i).sum()  # float32 corners of boxes
        np.testing.assert_allclose(again.boxes[0], found.boxes[i], atol=1e-3)


def test_a_box_is_outlined_on_each_of_its_slices_in_2d(tiny_model: Make, make_blobs: Blobs) -> None:
    volume, model = make_blobs(SHAPE), tiny_model(2, context=1)
    box = [2.6, 8, 6, 6.4, 20, 18]
    found = segment_box(volume, model, box, "tumour")
    mask = dense(found, 0)
    assert mask[3:6].any(axis=(1, 2)).all() and not mask[:3].any() and not mask[6:].any()
    rows, columns = np.nonzero(mask.any(axis=0))
    assert rows.min() >= 8 and rows.max() < 20 and columns.min() >= 6 and columns.max() < 18
    np.testing.assert_allclose(found.boxes[0], box, atol=1e-5)


def test_a_single_image_has_one_slice_to_outline(tiny_model: Make, make_blobs: Blobs) -> None:
    found = segment_box(make_blobs((1, 40, 36)), tiny_model(2), [0, 8, 6, 1, 20, 18], "liver")
    assert found.masks[0].array.any() and found.masks[0].array.shape[0] == 1


def test_what_cannot_be_outlined_is_said(tiny_model: Make, make_blobs: Blobs) -> None:
    volume, model = make_blobs(SHAPE), tiny_model(3)
    with pytest.raises(ValueError, match="no class 'kidney'; its classes are: liver, tumour"):
        segment_box(volume, model, [0, 0, 0, 4, 4, 4], "kidney")
    with pytest.raises(ValueError, match=r"the box must hold a part of the scan of shape \(10, 40, 36\)"):
        segment_box(volume, model, [0, 50, 0, 4, 60, 4], "liver")
    with pytest.raises(UnsuitableScanError, match="is a single slice"):
        segment_box(make_blobs((1, 40, 36)), model, [0, 0, 0, 1, 4, 4], "liver")


def test_boxes_turn_there_and_back() -> None:
    axes = AxisMap((2, 0, 1), (True, False, True))
    boxes = np.array([[1.0, 2.5, 3, 4, 6, 7.5]])
    turned = axes.apply_boxes(boxes, (10, 20, 30))
    np.testing.assert_array_equal(turned, [[22.5, 1, 14, 27, 4, 17.5]])
    np.testing.assert_array_equal(axes.undo_boxes(turned, (30, 10, 20)), boxes)


def test_a_scan_of_unknown_make_is_refused_by_a_model_with_a_domain(tiny_model: Make) -> None:
    model = tiny_model(3, card={"domain": "medmaskrcnn phantom"})
    volume = Volume(np.zeros((1, *SHAPE), np.int16), Grid(SHAPE, np.diag([3.0, 1, 1, 1])))
    with pytest.raises(UnsuitableScanError, match="knows only scans made by"):
        segment_box(volume, model, [0, 0, 0, 4, 4, 4], "liver")
    assert len(segment_box(volume, model, [0, 0, 0, 4, 4, 4], "liver", SegmentOptions(allow_out_of_domain=True))) == 1

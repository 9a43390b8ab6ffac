"""What the trace records is what the network did: the same boxes, scores and masks as without it."""

from __future__ import annotations

import math

import pytest
import torch

from medmaskrcnn.explain.focus import choose_focus, levels_of_boxes, on_plane, origin_of
from medmaskrcnn.explain.record import Walk, record_walk
from medmaskrcnn.explain.window import choose_window
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.models.rpn import batched_nms

KINDS = [(2, 0), (2, 1), (3, 0)]


def walk_of(loaded, volume, slice_index=None) -> Walk:
    """The walk of a scan's window."""
    prepared = prepare(volume, loaded.settings.preprocess)
    return record_walk(loaded.network, choose_window(prepared, loaded.settings, slice_index), loaded.device)


@pytest.mark.parametrize(("dims", "context"), KINDS)
def test_recording_changes_nothing(tiny_model, blobs, dims, context):
    loaded = tiny_model(dims, context=context)
    window = choose_window(prepare(blobs, loaded.settings.preprocess), loaded.settings, None)
    (plain,) = loaded.network.detect(window.images, [window.shape])
    walk = record_walk(loaded.network, window, loaded.device)
    assert len(plain.boxes) > 0
    for name in ("boxes", "labels", "scores", "mask_probabilities"):
        assert torch.equal(getattr(plain, name), getattr(walk.detections, name)), name
    assert not loaded.network.pyramid.backbone._forward_hooks  # no hook is left behind
    assert not loaded.network.mask_head._forward_hooks


@pytest.mark.parametrize(("dims", "context"), KINDS)
def test_every_step_is_there_and_fits_the_next(tiny_model, blobs, dims, context):
    loaded = tiny_model(dims, context=context)
    walk, model = walk_of(loaded, blobs), loaded.settings.model
    names = ["backbone", "pyramid", "rpn", "proposals", "regions", "scores", "found", "masks"]
    assert [step.name for step in walk.steps] == names
    assert all(step.seconds >= 0 for step in walk.steps)
    for level, stride in zip(walk.pyramid, walk.strides, strict=True):
        assert level.shape[0] == model.backbone.fpn_channels
        assert level.shape[1:] == tuple(math.ceil(n / s) for n, s in zip(walk.image.shape[1:], stride, strict=True))
    assert [len(a) for a in walk.anchors] == [len(o) for o in walk.objectness]
    assert walk.regions.shape == (len(walk.proposals), 8, *(3,) * dims)
    assert walk.mask_logits is not None
    chosen = walk.mask_logits[torch.arange(len(walk.detections.labels)), walk.detections.labels]
    assert torch.equal(chosen.sigmoid(), walk.detections.mask_probabilities)


@pytest.mark.parametrize(("dims", "context"), KINDS)
def test_what_suppression_was_given_leads_to_what_it_left(tiny_model, blobs, dims, context):
    loaded = tiny_model(dims, context=context)
    walk, model = walk_of(loaded, blobs), loaded.settings.model
    boxes, scores, levels = walk.candidates
    kept = batched_nms(boxes, scores, levels, model.rpn.nms_iou)[: model.rpn.post_nms_top_n]
    assert torch.equal(boxes[kept], walk.proposals)
    for i, box in enumerate(walk.detections.boxes):
        same = (walk.certain.boxes == box).all(dim=1) & (walk.certain.labels == walk.detections.labels[i])
        assert same.sum() == 1
        assert origin_of(walk, i) == int(walk.certain_regions[same])


def test_levels_follow_equation_1(tiny_model, blobs):
    loaded = tiny_model(2)
    walk = walk_of(loaded, blobs)
    sides = torch.tensor([2.0, 4.9, 5.1, 9.9, 10.1, 19.9, 20.1, 39.9, 40.1, 500.0])  # canonical: 20 voxels to P4
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), sides, sides], dim=1)
    assert (levels_of_boxes(walk, boxes, loaded.settings.model.roi) + 2).tolist() == [2, 2, 2, 2, 3, 3, 4, 4, 5, 5]


def test_focus_is_the_most_certain_object_of_the_slice(tiny_model, blobs):
    loaded = tiny_model(3)
    walk = walk_of(loaded, blobs)
    roi = loaded.settings.model.roi
    best = choose_focus(walk, roi, None)
    assert best.detection == 0
    assert bool(on_plane(walk.detections.boxes, best.plane)[0])
    for plane in range(walk.shape[0]):
        shown = torch.nonzero(on_plane(walk.detections.boxes, plane)).flatten().tolist()
        assert choose_focus(walk, roi, plane).detection == (shown[0] if shown else None)


def test_nothing_found_is_no_error(tiny_model, blobs):
    walk = walk_of(tiny_model(2, score_thresh=1.0), blobs)
    assert len(walk.detections.boxes) == 0
    assert walk.mask_logits is not None and len(walk.mask_logits) == 0


def test_windows_of_a_long_scan(tiny_model, blobs):
    loaded = tiny_model(3, tile=(8, 64, 64))
    prepared = prepare(blobs, loaded.settings.preprocess)
    for index in range(20):
        window = choose_window(prepared, loaded.settings, index)
        assert window.low[0] + window.plane == index
        seen = window.images[0, :, window.plane, : window.shape[1], : window.shape[2]]
        assert torch.equal(seen, prepared.tensor[:, index])
    with pytest.raises(ValueError, match="slices 0 to 19, got slice 20"):
        choose_window(prepared, loaded.settings, 20)


def test_neighbours_of_a_slice_are_channels(tiny_model, blobs):
    loaded = tiny_model(2, context=1)
    prepared = prepare(blobs, loaded.settings.preprocess)
    window = choose_window(prepared, loaded.settings, 19)
    images = window.images[0, :, : window.shape[0], : window.shape[1]]
    assert torch.equal(images[:2], prepared.tensor[0, 18:20])
    assert not images[2].any()  # beyond the end

"""From scores and deltas to boxes: what the RPN proposes, and what the box head's scores become."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medmaskrcnn.models.anchors import grid_anchors
from medmaskrcnn.models.box_head import BOX_CODER, postprocess_detections
from medmaskrcnn.models.rpn import RPNHead, filter_proposals, top_n
from medmaskrcnn.settings import AnchorSettings, DetectionSettings, RPNSettings

IMAGE = (100, 100)
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60], [90, 90, 120, 130]])


def proposals(objectness: list[float], boxes: Tensor = BOXES, image: tuple[int, ...] = IMAGE, **settings) -> Tensor:
    """What one level whose anchors are ``boxes`` proposes when no delta moves them."""
    return filter_proposals(
        [torch.tensor(objectness)], [torch.zeros_like(boxes)], [boxes], image, RPNSettings(**settings)
    )


def test_proposals_are_thinned_out_cut_and_sorted() -> None:
    found = proposals([1.0, 2.0, 3.0, 0.0])  # the first overlaps the second by 9 / 11
    assert found.tolist() == [[50, 50, 60, 60], [0, 1, 10, 11], [90, 90, 100, 100]]
    assert len(proposals([1.0, 2.0, 3.0, 0.0], nms_iou=0.9)) == 4


def test_limits_before_and_after_suppression() -> None:
    assert proposals([1.0, 2.0, 3.0, 0.0], pre_nms_top_n=2).tolist() == [[50, 50, 60, 60], [0, 1, 10, 11]]
    assert proposals([1.0, 2.0, 3.0, 0.0], post_nms_top_n=1).tolist() == [[50, 50, 60, 60]]


def test_equal_scores_go_by_index() -> None:
    assert proposals([1.0] * 4).tolist() == [[0, 0, 10, 10], [50, 50, 60, 60], [90, 90, 100, 100]]
    assert top_n(torch.tensor([1.0, 3, 3, 0, 3]), 3).tolist() == [1, 2, 4]
    assert top_n(torch.zeros(300), 300).tolist() == list(range(300))
    many_ties = torch.randn(5_000, generator=torch.Generator().manual_seed(0)).mul(4).round()
    for n in (1, 700, 4_999):
        assert torch.equal(top_n(many_ties, n), torch.sort(many_ties, descending=True, stable=True).indices[:n])


def test_levels_do_not_suppress_one_another() -> None:
    two = [torch.tensor([1.0]), torch.tensor([2.0])]
    found = filter_proposals(two, [torch.zeros(1, 4)] * 2, [BOXES[:1], BOXES[1:2]], IMAGE, RPNSettings())
    assert found.tolist() == [[0, 1, 10, 11], [0, 0, 10, 10]]


def test_slivers_and_boxes_outside_are_dropped() -> None:
    outside = torch.tensor([[101.0, 101, 130, 130], [5, 5, 5, 20], [5, 5, 9, 20]])
    assert proposals([3.0, 2.0, 1.0], outside).tolist() == [[5, 5, 9, 20]]
    assert len(proposals([3.0, 2.0, 1.0], outside, min_size=4.5)) == 0


def test_proposals_in_3d() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 4, 10, 10], [0, 0, 0, 4, 10, 9], [6, 0, 0, 12, 10, 10]])
    assert proposals([1.0, 2.0, 0.5], boxes, (8, 20, 20)).tolist() == [[0, 0, 0, 4, 10, 9], [6, 0, 0, 8, 10, 10]]


@pytest.mark.parametrize("dims", [2, 3])
def test_head_orders_its_outputs_as_the_anchors(dims: int) -> None:
    """A head that only reads one cell lights up that cell's anchors, and no others."""
    head = RPNHead(spatial_dims=dims, channels=3, anchors_per_cell=2)
    with torch.no_grad():
        for layer in (head.conv, head.objectness, head.deltas):
            layer.weight.zero_()
        centre = (slice(None), slice(None), *(1,) * dims)
        head.conv.weight[centre] = torch.eye(3)
        head.objectness.weight[1, 0] = 1.0  # the second anchor
        head.deltas.weight[2 * dims + 1, 0] = 1.0  # of it, the shift along the second axis
    shape = (2, 3, 5)[-dims:]
    level = torch.zeros((1, 3, *shape))
    cell = (1, 2, 3)[-dims:]
    level[(0, 0, *cell)] = 7.0
    objectness, deltas = head([level])
    settings = AnchorSettings(sizes=((4.0,) * dims,) * 5, ratios=(1.0, 2.0))
    anchors = grid_anchors(
        settings, image=shape, maps=(shape,) * 5, strides=((1,) * dims,) * 5, device=torch.device("cpu")
    )[0]
    assert objectness[0].shape == (1, len(anchors)) and deltas[0].shape == (1, *anchors.shape)
    (lit,) = objectness[0][0].nonzero().flatten().tolist()
    assert deltas[0][0].nonzero().tolist() == [[lit, 1]]
    centre_vox = (anchors[lit, :dims] + anchors[lit, dims:]) / 2
    assert centre_vox.tolist() == [c + 0.5 for c in cell]
    edges = anchors[lit, dims:] - anchors[lit, :dims]
    assert edges[-2] > edges[-1]


def detections(probabilities: list[list[float]], boxes: Tensor, image: tuple[int, ...] = IMAGE, **settings):
    """Regions with these class probabilities (background first) whose every class keeps its box."""
    logits = torch.tensor(probabilities).clamp(min=1e-9).log()
    deltas = torch.zeros((len(boxes), logits.shape[1], boxes.shape[1]))
    return postprocess_detections(logits, deltas, boxes, image, DetectionSettings(**settings))


def test_detections_by_hand() -> None:
    found = detections([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.3, 0.1, 0.6], [0.97, 0.03, 0.0]], BOXES)
    # the second is the first once more; the third passes twice, the last not at all
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.1]))
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60], [50, 50, 60, 60]]
    assert found.mask_probabilities is None


def test_classes_do_not_suppress_one_another() -> None:
    assert len(detections([[0.1, 0.9, 0.0], [0.2, 0.0, 0.8]], BOXES[:2]).boxes) == 2
    assert len(detections([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0]], BOXES[:2]).boxes) == 1


def test_each_class_moves_its_own_box() -> None:
    target = torch.tensor([[20.0, 30.0, 40.0, 60.0]])
    deltas = torch.zeros((1, 3, 4))
    deltas[:, 2] = BOX_CODER.encode(target, BOXES[:1])
    found = postprocess_detections(torch.tensor([[-9.0, 0, 0]]), deltas, BOXES[:1], IMAGE, DetectionSettings())
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.boxes, torch.cat([BOXES[:1], target]))


def test_equal_detections_go_by_index_up_to_the_limit() -> None:
    apart = torch.tensor([[10.0 * i, 0, 10.0 * i + 5, 5] for i in range(8)])
    found = detections([[0.5, 0.5]] * 8, apart, detections_per_img=5)
    assert torch.equal(found.boxes, apart[:5])


def test_detections_are_cut_to_the_image_and_slivers_dropped() -> None:
    boxes = torch.tensor([[90.0, 90, 120, 130], [100, 0, 120, 50], [3, 3, 3.001, 9]])
    assert detections([[0.1, 0.9]] * 3, boxes).boxes.tolist() == [[90, 90, 100, 100]]


@pytest.mark.parametrize("dims", [2, 3])
def test_no_regions_give_no_detections(dims: int) -> None:
    found = postprocess_detections(
        torch.zeros((0, 3)), torch.zeros((0, 3, 2 * dims)), torch.zeros((0, 2 * dims)), (9,) * dims, DetectionSettings()
    )
    assert found.boxes.shape == (0, 2 * dims)
    assert found.labels.dtype == torch.int64


def test_detections_in_3d() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 4, 10, 10], [4, 0, 0, 8, 10, 10], [0, 0, 0, 4, 10, 9]])
    found = detections([[0.2, 0.8], [0.3, 0.7], [0.1, 0.9]], boxes, (6, 20, 20))
    assert found.boxes.tolist() == [[0, 0, 0, 4, 10, 9], [4, 0, 0, 6, 10, 10]]


def test_head_is_one_function_for_all_levels() -> None:
    head = RPNHead(spatial_dims=2, channels=4, anchors_per_cell=3)
    level = torch.randn((2, 4, 3, 5))
    objectness, deltas = head([level, level])
    assert torch.equal(objectness[0], objectness[1])
    assert objectness[0].shape == (2, 45) and deltas[0].shape == (2, 45, 4)
    assert all(isinstance(m, nn.Conv2d) for m in head.children())

"""Losses of images in which not all classes were annotated: no class is punished where it is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.losses import box_losses, marginal_cross_entropy, rpn_losses
from medmaskrcnn.models.matching import match_by_iou
from medmaskrcnn.models.objective import Targets, box_terms, rpn_terms, select_training_samples
from medmaskrcnn.models.rpn import RPN_CODER, RPNHead
from medmaskrcnn.models.sampling import sample
from medmaskrcnn.settings import LossSettings, ModelSettings, RoISettings, RPNSettings

Tiny = Callable[..., ModelSettings]
SETS = {"abdomen": range(13), "lungs": range(13, 15), "head and neck": range(15, 20)}
"""Twenty classes of three sets of scans; in each case of a set only the set's own were annotated."""
CLASSES = 20
ROUNDING = 1e-7  # of a gradient that is 0 or below


def annotated(name: str) -> Tensor:
    known = torch.zeros(CLASSES, dtype=torch.bool)
    known[list(SETS[name])] = True
    return known


def case_of(name: str) -> Targets:
    """One object of the set's first class."""
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    return Targets(box, torch.tensor([SETS[name][0]]), annotated=annotated(name))


def grid_of_anchors() -> Tensor:
    corners = torch.cartesian_prod(torch.arange(0.0, 64, 8), torch.arange(0.0, 64, 8))
    return torch.cat([corners, corners + 16], dim=1)


def test_marginal_cross_entropy_by_hand() -> None:
    # p = 1/2 background, 1/4, 1/8, 1/8: with the third unknown, background costs -log(1/2 + 1/8)
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log().repeat(3, 1)
    unknown = torch.tensor([[False, False, True], [False] * 3, [False, False, True]])
    found = marginal_cross_entropy(logits, torch.tensor([0, 0, 1]), unknown)
    torch.testing.assert_close(found, torch.tensor([-math.log(0.625), math.log(2.0), math.log(4.0)]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(list(SETS)), st.floats(0.1, 20), st.sampled_from([0.0, 0.5, 1.5, 2.0]))
def test_background_never_lowers_an_unknown_class(seed: int, name: str, scale: float, focal: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = (torch.randn((9, CLASSES + 1), generator=random) * scale).requires_grad_()
    unknown = ~annotated(name).expand(9, -1)
    none = torch.zeros((0, 4))
    term, _ = box_losses(logits, torch.zeros(9, dtype=torch.int64), none, none, focal=focal, unknown=unknown)
    term.total.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and term.total.detach() >= 0
    classes = logits.grad[:, 1:]
    assert (classes[unknown] <= ROUNDING).all()  # descent raises it, or leaves it
    assert (classes[~unknown] >= -ROUNDING).all() and (classes[~unknown] > 0).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 2.0]))
def test_equal_to_cross_entropy_where_all_is_known(seed: int, focal: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits, classes = torch.randn((7, 5), generator=random), torch.randint(0, 5, (7,), generator=random)
    known = torch.zeros((7, 4), dtype=torch.bool)
    torch.testing.assert_close(
        marginal_cross_entropy(logits, classes, known), F.cross_entropy(logits, classes, reduction="none")
    )
    # what an object costs does not depend on what is unknown elsewhere
    objects = classes.clamp(min=1)
    torch.testing.assert_close(
        marginal_cross_entropy(logits, objects, ~known), F.cross_entropy(logits, objects, reduction="none")
    )


@pytest.mark.parametrize("name", SETS)
def test_no_organ_of_a_set_is_punished_on_the_scans_of_another_in_the_box_head(name: str) -> None:
    targets, proposals = [case_of(name)], [grid_of_anchors()]
    regions = select_training_samples(proposals, targets, [torch.Generator().manual_seed(0)], RoISettings())
    assert regions.unknown is not None and regions.unknown.shape == (len(regions.classes), CLASSES)
    logits = torch.randn((len(regions.classes), CLASSES + 1), requires_grad=True)
    deltas = torch.zeros((len(regions.classes), CLASSES + 1, 4))
    box_terms(logits, deltas, regions, targets, LossSettings())["classification"].total.backward()
    assert logits.grad is not None
    of_background = logits.grad[regions.classes == 0][:, 1:]
    assert (of_background[:, ~annotated(name)] <= ROUNDING).all()
    assert (of_background[:, annotated(name)] > 0).any()


def objectness_gradient(targets: list[Targets], logits: int, **rpn: object) -> tuple[Tensor, Tensor]:
    """Gradient ``(B, anchors, logits)`` of the objectness term, and its count."""
    anchors = grid_of_anchors()
    objectness = torch.randn((len(targets), len(anchors), logits), requires_grad=True)
    deltas = torch.zeros((len(targets), len(anchors), 4))
    terms = rpn_terms(
        [objectness], [deltas], [anchors], targets, [torch.Generator().manual_seed(i) for i in range(len(targets))],
        per_cell=1, settings=RPNSettings(**rpn), loss=LossSettings(),
    )  # fmt: skip
    terms["objectness"].total.backward()
    assert objectness.grad is not None
    return objectness.grad, torch.tensor(terms["objectness"].count)


@pytest.mark.parametrize("matcher", ["iou", "atss"])
@pytest.mark.parametrize("negatives", ["random", "hard"])
def test_no_organ_of_a_set_is_punished_on_the_scans_of_another_in_the_rpn(matcher: str, negatives: str) -> None:
    names = list(SETS)
    rpn = {"matcher": matcher, "negatives": negatives}
    gradient, count = objectness_gradient([case_of(name) for name in names], CLASSES, **rpn)
    assert count > 100
    for image, name in enumerate(names):
        known = annotated(name)
        assert (gradient[image][:, ~known] == 0).all()  # wherever its organs lie in this scan, nothing pushes them
        assert (gradient[image][:, known] > 0).any()  # its own organs are told where they are not
        assert (gradient[image][:, SETS[name][0]] < 0).any()  # and where they are
        assert ((gradient[image] > 0).sum(dim=1) <= 1).all()  # only the largest logit is lowered


def test_one_objectness_for_all_classes_has_negatives_only_where_all_were_annotated() -> None:
    box, label = torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0])
    whole, partly = Targets(box, label), Targets(box, label, annotated=torch.tensor([True, False]))
    gradient, _ = objectness_gradient([whole, partly], 1)
    assert (gradient[0] > 0).any() and (gradient[0] < 0).any()
    assert (gradient[1] <= 0).all() and (gradient[1] < 0).any()


@pytest.mark.parametrize("logits", [1, 2])
def test_an_image_of_which_nothing_is_known_teaches_nothing(logits: int) -> None:
    nothing = Targets(torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64), annotated=torch.tensor([False, False]))
    gradient, count = objectness_gradient([nothing], logits)
    assert count == 0 and (gradient == 0).all()
    regions = select_training_samples([grid_of_anchors()], [nothing], [None], RoISettings())
    assert len(regions.classes) == 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("objectness", ["shared", "per_class"])
def test_complete_images_give_the_same_bits_however_that_is_said(tiny_model: Tiny, dims: int, objectness: str) -> None:
    shape = (64, 96) if dims == 2 else (16, 64, 64)
    network = build_model(tiny_model(dims, rpn=RPNSettings(batch_per_image=32, objectness=objectness)))
    boxes = torch.tensor([[4.0, 8, 8, 12, 28, 24], [2.0, 32, 36, 14, 52, 60]])
    boxes = boxes if dims == 3 else boxes[:, [1, 2, 4, 5]]
    masks = torch.zeros((2, *shape))
    for mask, box in zip(masks, boxes.int().tolist(), strict=True):
        mask[tuple(slice(a, b) for a, b in zip(box[:dims], box[dims:], strict=True))] = 1
    plain = Targets(boxes, torch.tensor([0, 1]), masks)
    said = Targets(
        boxes, torch.tensor([0, 1]), masks, torch.tensor([True, True]), torch.zeros((0, 2 * dims)), None
    )  # fmt: skip
    image, found = torch.randn((1, 1, *shape)), []
    for target in (plain, said):
        network.zero_grad()
        terms = network.losses(image, [target], seeds=[5])
        torch.stack(list(terms.values())).sum().backward()
        found.append((list(terms.values()), [p.grad for p in network.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_complete_images_with_one_objectness_give_the_bits_of_faster_r_cnn() -> None:
    """The objectness and box terms as they were before classes could be unknown, step by step."""
    anchors, settings_ = grid_of_anchors(), RPNSettings(batch_per_image=20)
    objectness, deltas = torch.randn((1, len(anchors))), torch.randn((1, len(anchors), 4))
    target = Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0]))
    matches = match_by_iou(target.boxes, anchors, foreground=0.7, background=0.3, allow_low_quality_matches=True)
    positive, negative = sample(
        matches, count=20, positive_fraction=0.5, random=torch.Generator().manual_seed(3)
    )  # fmt: skip
    expected = rpn_losses(
        objectness[0, torch.cat([positive, negative])],
        torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]),
        deltas[0, positive],
        RPN_CODER.encode(target.boxes[matches[positive]], anchors[positive]),
    )
    terms = rpn_terms(
        [objectness[..., None]], [deltas], [anchors], [target], [torch.Generator().manual_seed(3)],
        per_cell=1, settings=settings_, loss=LossSettings(),
    )  # fmt: skip
    assert torch.equal(terms["objectness"].total, expected[0].total)
    assert torch.equal(terms["rpn_box"].total, expected[1].total)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_with_objectness_per_class_proposes_by_the_largest(tiny_model: Tiny, dims: int) -> None:
    network = build_model(tiny_model(dims, rpn=RPNSettings(objectness="per_class")))
    levels = [torch.randn((2, 8, *(4,) * dims)), torch.randn((2, 8, *(2,) * dims))]
    all_logits, deltas = network.rpn_head.all_logits(levels)
    objectness, same_deltas = network.rpn_head(levels)
    for every, largest, some, same in zip(all_logits, objectness, deltas, same_deltas, strict=True):
        assert every.shape == (*largest.shape, 2) and some.shape[:2] == largest.shape
        assert torch.equal(every.max(dim=-1).values, largest) and torch.equal(some, same)


def test_logits_of_one_anchor_lie_together() -> None:
    """Of two anchors and three classes, the second anchor's last class is the sixth channel."""
    head = RPNHead(spatial_dims=2, channels=3, anchors_per_cell=2, logits=3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.objectness.bias[5] = 1.0
    (found,), _ = head.all_logits([torch.zeros((1, 3, 2, 2))])
    assert found.shape == (1, 8, 3)
    assert torch.equal(found[0].nonzero(), torch.tensor([[1, 2], [3, 2], [5, 2], [7, 2]]))

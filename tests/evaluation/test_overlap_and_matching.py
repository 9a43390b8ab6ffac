"""Agreement of masks against pycocotools and by hand, and COCO's matching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn.evaluation.metrics.matching import CaseSummary, match_case
from medmaskrcnn.evaluation.metrics.overlap import dice, over_union
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts


def instances(masks: list[np.ndarray], labels: list[int], scores: list[float], names: tuple[str, ...]) -> Instances:
    """Instances from dense ``(D, H, W)`` masks."""
    crops = [Mask((0, 0, 0), m).tight() for m in masks]
    return Instances.from_masks(Grid(masks[0].shape, np.diag([3.0, 2, 1, 1])), names, labels, crops, scores=scores)


def mask_iou(first: Instances, second: Instances) -> np.ndarray:
    return over_union(shared_voxel_counts(first, second), voxel_counts(first), voxel_counts(second))


def blobs(seed: int, n: int, shape: tuple[int, int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), -1)
    radii = np.where(np.array(shape) > 1, rng.uniform(1, 9, (n, 3)), 1)
    centres = rng.uniform(0, shape, (n, 3)) - 0.5
    return [(((index - c) / r) ** 2).sum(-1) < 1 for c, r in zip(centres, radii, strict=True)]


def test_dice_by_hand() -> None:
    a = np.array([[1, 1, 0], [0, 0, 0]], bool)
    b = np.array([[1, 0, 0], [1, 0, 0]], bool)
    assert dice(a, b) == 0.5  # 2 * 1 / (2 + 2)
    assert dice(a, a) == 1.0
    assert dice(a, ~a & b) == 0.0
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_dice_refuses() -> None:
    with pytest.raises(ValueError, match="one shape"):
        dice(np.zeros(3, bool), np.zeros(4, bool))
    with pytest.raises(ValueError, match="boolean"):
        dice(np.zeros(3, np.int64), np.zeros(3, bool))


@pytest.mark.parametrize("seed", range(5))
def test_iou_equals_pycocotools(seed: int) -> None:
    mask_utils = pytest.importorskip("pycocotools.mask")
    first, second = blobs(seed, 7, (1, 30, 40)), blobs(seed + 100, 6, (1, 30, 40))
    encoded = [[mask_utils.encode(np.asfortranarray(m[0].astype(np.uint8))) for m in side] for side in (first, second)]
    expected = mask_utils.iou(encoded[0], encoded[1], [False] * len(second))
    got = mask_iou(instances(first, [0] * 7, [1] * 7, ("x",)), instances(second, [0] * 6, [1] * 6, ("x",)))
    assert np.array_equal(got, expected)
    assert np.count_nonzero(got) > 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_iou_on_crops_equals_iou_on_volumes(seed: int) -> None:
    first, second = blobs(seed, 4, (9, 12, 10)), blobs(seed + 1, 3, (9, 12, 10))
    first.append(np.zeros((9, 12, 10), bool))
    got = mask_iou(instances(first, [0] * 5, [1] * 5, ("x",)), instances(second, [0] * 3, [1] * 3, ("x",)))
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in second] for a in first]
    assert np.array_equal(got, expected)


def test_iou_of_nothing_and_of_other_grids() -> None:
    some = instances(blobs(0, 2, (4, 5, 6)), [0, 0], [1, 1], ("x",))
    nothing = empty_instances(some.grid, ("x",))
    assert mask_iou(some, nothing).shape == (2, 0)
    assert mask_iou(nothing, some).shape == (0, 2)
    with pytest.raises(ValueError, match="one grid"):
        mask_iou(some, empty_instances(Grid((4, 5, 7), np.eye(4)), ("x",)))


def test_case_summary_by_hand() -> None:
    """Liver found, tumour missed, spleen invented; class names in another order than the reference's."""
    liver, tumour, spleen = (np.zeros((2, 4, 6), bool) for _ in range(3))
    liver[:, :, :3] = True  # 24 voxels
    tumour[0, 0, 0] = True
    spleen[:, :, 5] = True
    near = liver.copy()
    near[0, 0, :] = True  # 27 voxels: 12.5 % too large
    predicted = instances([near, spleen], [2, 0], [0.9, 0.8], ("spleen", "tumour", "liver"))
    reference = instances([tumour, liver], [1, 0], [1, 1], ("liver", "tumour"))
    got = match_case(predicted, reference)
    (match,) = got.matches
    assert (match.predicted, match.reference, match.class_name) == (0, 1, "liver")
    assert match.iou == pytest.approx(24 / 27) and match.dice == pytest.approx(48 / 51)
    assert match.volume_error == pytest.approx(0.125)
    assert (got.missed, got.false_positives) == ((0,), (1,))
    assert got.n_reference == 2
    assert got.mean_dice == pytest.approx(48 / 51)


def test_empty_summary() -> None:
    got = match_case(*[empty_instances(Grid((2, 2, 2), np.eye(4)), ("x",))] * 2)
    assert got == CaseSummary(0.5, (), (), ())
    assert got.mean_dice is None
    empty = instances([np.zeros((2, 2, 2), bool)], [0], [0.9], ("x",))
    assert match_case(empty, empty_instances(empty.grid, ("y",))).false_positives == (0,), "a mask without a voxel too"
    with pytest.raises(ValueError, match="threshold"):
        match_case(empty, empty, iou_threshold=0)

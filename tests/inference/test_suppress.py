"""What better objects of the class contain is removed, and so are further ones of a single organ; nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import tiny_settings

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.inference.suppress import suppress_contained, suppress_duplicates
from medmaskrcnn.structures.instances import Removal
from medmaskrcnn.structures.mask import Mask

SHAPE = (4, 20, 20)


def block(score: float, low: tuple[int, int, int], size: tuple[int, int, int], label: int = 0) -> Detection:
    mask = Mask(low, np.ones(size, dtype=np.bool_))
    return Detection(label, score, mask.box, mask)


def remaining(found: list[Detection], max_containment: float) -> list[Detection]:
    """Those not removed, after a check that the others are there too, in their order, with the reason."""
    after = suppress_contained(found, max_containment=max_containment, shape=SHAPE)
    assert [one.mask for one in after] == [one.mask for one in found]
    assert {one.removed for one in after} <= {Removal.NONE, Removal.CONTAINED}
    return [one for one in after if one.removed == Removal.NONE]


def test_one_that_spans_two_better_ones_goes() -> None:
    left, right = block(0.9, (0, 2, 2), (2, 6, 6)), block(0.8, (0, 2, 8), (2, 6, 6))
    both = block(0.7, (0, 2, 2), (2, 6, 12))
    assert remaining([both, left, right], 0.5) == [left, right]


def test_a_part_goes_but_the_whole_that_scores_less_does_not_take_a_better_part_away() -> None:
    whole, part = block(0.9, (0, 0, 0), (4, 10, 10)), block(0.5, (1, 2, 2), (2, 4, 4))
    assert remaining([whole, part], 0.5) == [whole]
    better_part = block(0.95, (1, 2, 2), (2, 4, 4))
    assert remaining([whole, better_part], 0.5) == [whole, better_part]


@pytest.mark.parametrize(("share", "stays"), [(0.5, True), (0.49, False)])
def test_the_share_decides(share: float, stays: bool) -> None:
    first, half_covered = block(0.9, (0, 0, 0), (2, 4, 4)), block(0.5, (0, 0, 2), (2, 4, 4))
    assert (half_covered in remaining([first, half_covered], share)) is stays


def test_a_removed_one_contains_nothing() -> None:
    best, second, third = (
        block(0.9, (0, 0, 0), (1, 4, 4)),
        block(0.8, (0, 0, 1), (1, 4, 4)),
        block(0.7, (0, 0, 4), (1, 4, 2)),
    )
    assert remaining([best, second, third], 0.2) == [best, third]


def test_other_classes_do_not_count_and_an_empty_mask_stays() -> None:
    organ, tumour = block(0.9, (0, 0, 0), (4, 10, 10), label=0), block(0.5, (1, 2, 2), (2, 4, 4), label=1)
    empty = block(0.4, (0, 0, 0), (0, 0, 0))
    assert remaining([organ, tumour, empty], 0.3) == [organ, tumour, empty]


def test_of_a_single_organ_the_best_that_is_there_remains() -> None:
    settings = tiny_settings(
        3, model={"class_names": ("liver", "tumour")}, inference={"one_per_scan_classes": ("liver",)}
    )
    empty, contained, best, other = (
        block(score, (0, 0, 2 * i), (1, 4, 0 if i == 0 else 2)) for i, score in enumerate((0.99, 0.95, 0.9, 0.8))
    )
    contained = Detection(0, 0.95, contained.box, contained.mask, Removal.CONTAINED)
    tumours = [block(0.7, (0, 0, 0), (1, 2, 2), label=1), block(0.6, (2, 0, 0), (1, 2, 2), label=1)]
    after = suppress_duplicates([empty, contained, best, other, *tumours], settings)
    assert [one.score for one in after] == [0.99, 0.95, 0.9, 0.8, 0.7, 0.6]
    assert [one.removed for one in after] == [
        Removal.NONE, Removal.CONTAINED, Removal.NONE, Removal.DUPLICATE, Removal.NONE, Removal.NONE,
    ]  # fmt: skip

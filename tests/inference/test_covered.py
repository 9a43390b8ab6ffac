"""What better objects of the class cover is dropped; all else stays."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.inference.suppress import suppress_contained
from medmaskrcnn.structures.mask import Mask

SHAPE = (4, 20, 20)


def block(score: float, low: tuple[int, int, int], size: tuple[int, int, int], label: int = 0) -> Detection:
    mask = Mask(low, np.ones(size, dtype=np.bool_))
    return Detection(label, score, mask.box, mask)


def test_one_that_spans_two_better_ones_goes() -> None:
    left, right = block(0.9, (0, 2, 2), (2, 6, 6)), block(0.8, (0, 2, 8), (2, 6, 6))
    both = block(0.7, (0, 2, 2), (2, 6, 12))
    assert suppress_contained([both, left, right], max_containment=0.5, shape=SHAPE) == [left, right]


def test_a_part_goes_but_the_whole_that_scores_less_does_not_take_a_better_part_away() -> None:
    whole, part = block(0.9, (0, 0, 0), (4, 10, 10)), block(0.5, (1, 2, 2), (2, 4, 4))
    assert suppress_contained([whole, part], max_containment=0.5, shape=SHAPE) == [whole]
    better_part = block(0.95, (1, 2, 2), (2, 4, 4))
    assert suppress_contained([whole, better_part], max_containment=0.5, shape=SHAPE) == [whole, better_part]


@pytest.mark.parametrize(("share", "stays"), [(0.5, True), (0.49, False)])
def test_the_share_decides(share: float, stays: bool) -> None:
    first, half_covered = block(0.9, (0, 0, 0), (2, 4, 4)), block(0.5, (0, 0, 2), (2, 4, 4))
    assert (half_covered in suppress_contained([first, half_covered], max_containment=share, shape=SHAPE)) is stays


def test_a_dropped_one_covers_nothing() -> None:
    best, second, third = (
        block(0.9, (0, 0, 0), (1, 4, 4)),
        block(0.8, (0, 0, 1), (1, 4, 4)),
        block(0.7, (0, 0, 4), (1, 4, 2)),
    )
    assert suppress_contained([best, second, third], max_containment=0.2, shape=SHAPE) == [best, third]


def test_other_classes_do_not_count_and_an_empty_mask_stays() -> None:
    organ, tumour = block(0.9, (0, 0, 0), (4, 10, 10), label=0), block(0.5, (1, 2, 2), (2, 4, 4), label=1)
    empty = block(0.4, (0, 0, 0), (0, 0, 0))
    assert suppress_contained([organ, tumour, empty], max_containment=0.3, shape=SHAPE) == [organ, tumour, empty]

"""Matched, missed and false, in numbers and as layers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medmaskrcnn.core.compare import compare, suggested_classes
from napari_medmaskrcnn.layers.comparison_layers import ONLY_REFERENCE, ONLY_RESULT, comparison_layers

SHAPE = (4, 12, 12)
FOUND = [
    ("tumour", 0.9, (0, 0, 0), (2, 4, 4)),
    ("tumour", 0.8, (0, 8, 8), (1, 2, 2)),
    ("liver", 0.9, (2, 6, 0), (2, 4, 4)),
]
TRUTH = [
    ("tumour", 1.0, (0, 0, 1), (2, 4, 4)),
    ("tumour", 1.0, (3, 0, 8), (1, 3, 3)),
    ("GTV", 1.0, (2, 6, 0), (2, 4, 4)),
]


@pytest.fixture
def pair(make_result):
    return make_result(FOUND, SHAPE)[1].instances, make_result(TRUTH, SHAPE)[1].instances


def rows(found) -> list[tuple[str, str, float | None]]:
    return [(one.class_name, one.outcome, one.dice) for one in found.outcomes]


def test_by_class(pair):
    classes = suggested_classes(*pair)
    assert classes == {"tumour": "tumour"}
    found = compare(*pair, classes=classes)
    assert rows(found) == [
        ("tumour", "matched", 0.75), ("tumour", "missed", None), ("GTV", "missed", None),
        ("tumour", "only in the result", None), ("liver", "only in the result", None),
    ]  # fmt: skip
    assert found.sentence() == "1 matched, mean Dice 0.75, 2 missed, 2 only in the result."


def test_classes_are_mapped_by_hand(pair):
    found = compare(*pair, classes={"tumour": "tumour", "liver": "GTV"})
    assert rows(found)[:2] == [("tumour", "matched", 0.75), ("liver = GTV", "matched", 1.0)]


def test_classes_without_names_are_recognised_by_their_voxels(make_result):
    truth = [(f"label {n}", 1.0, start, extent) for n, (_, _, start, extent) in enumerate(TRUTH, start=1)]
    pair = make_result(FOUND, SHAPE)[1].instances, make_result(truth, SHAPE)[1].instances
    assert suggested_classes(*pair) == {"tumour": "label 1", "liver": "label 3"}
    assert rows(compare(*pair, classes=suggested_classes(*pair)))[0] == ("tumour = label 1", "matched", 0.75)
    named = make_result([("lung", *rest) for _, *rest in TRUTH], SHAPE)[1].instances
    assert suggested_classes(pair[0], named) == {}  # what has a name of its own is not guessed


def test_by_shape_alone(pair):
    found = compare(*pair)
    assert [one.outcome for one in found.outcomes] == ["matched", "matched", "missed", "only in the result"]
    matched, missed, false, differences = comparison_layers(found)
    assert [layer[1]["name"] for layer in (matched, missed, false, differences)] == [
        "matched (2)", "missed (1)", "only in the result (1)", "differences",
    ]  # fmt: skip
    assert [int(np.count_nonzero(layer[0])) for layer in (matched, missed, false)] == [64, 9, 4]
    assert missed[0][0, 0, 8] == 1  # stored slice 3 of 4 is the uppermost shown
    assert sorted(matched[1]["features"]["Dice"]) == [0.75, 1.0]
    values, counts = np.unique(differences[0], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 576 - 16, ONLY_RESULT: 8, ONLY_REFERENCE: 8}


def test_volume_and_distance_of_matched_objects(make_result):
    """Voxels of 2 x 1 x 1 mm; the result is one column wider."""
    wide, true = ([("liver", 1.0, (0, 0, 0), (2, 4, n))] for n in (5, 4))
    found = compare(make_result(wide, SHAPE)[1].instances, make_result(true, SHAPE)[1].instances)
    (one,) = found.outcomes
    assert one.volume_difference == pytest.approx(8 * 2.0 / 1000) and one.hd95 == pytest.approx(1.0)


def test_a_result_is_not_compared_with_itself(pair):
    with pytest.raises(ValueError, match="cannot be compared with itself"):
        compare(pair[0], pair[0])


def test_the_threshold_decides(pair):
    assert len(compare(*pair, iou_threshold=0.7, classes=suggested_classes(*pair)).summary.matches) == 0


def test_two_scans_are_not_compared(pair, make_result):
    with pytest.raises(ValueError, match="do not lie on the same scan"):
        compare(pair[0], make_result(TRUTH, (5, 12, 12))[1].instances)


def test_nothing_against_nothing(make_result):
    nothing = make_result([], SHAPE)[1].instances
    found = compare(nothing, make_result([], SHAPE)[1].instances)
    assert found.outcomes == [] and [int(d.max()) for d, _, _ in comparison_layers(found)] == [0, 0, 0, 0]

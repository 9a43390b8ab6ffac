"""Matched, missed and false, in numbers and as layers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medmaskrcnn.core.compare import compare, comparison_layers

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


def test_by_class(pair):
    found = compare(*pair)
    assert found.rows() == [
        ("tumour", "matched", "0.75"), ("tumour", "missed", ""), ("GTV", "missed", ""),
        ("tumour", "false", ""), ("liver", "false", ""),
    ]  # fmt: skip
    assert found.sentence() == "1 matched, mean Dice 0.75, 2 missed, 2 false."


def test_by_shape_alone(pair):
    found = compare(*pair, by_class=False)
    assert [row[1] for row in found.rows()] == ["matched", "matched", "missed", "false"]
    matched, missed, false = comparison_layers(found)
    assert [layer[1]["name"] for layer in (matched, missed, false)] == ["matched (2)", "missed (1)", "false (1)"]
    assert [int(np.count_nonzero(layer[0])) for layer in (matched, missed, false)] == [64, 9, 4]
    assert missed[0][0, 0, 8] == 1  # stored slice 3 of 4 is the uppermost shown
    assert sorted(matched[1]["features"]["Dice"]) == [0.75, 1.0]


def test_the_threshold_decides(pair):
    assert len(compare(*pair, iou_threshold=0.7).summary.matches) == 0


def test_two_scans_are_not_compared(pair, make_result):
    with pytest.raises(ValueError, match="do not lie on the same scan"):
        compare(pair[0], make_result(TRUTH, (5, 12, 12))[1].instances)


def test_nothing_against_nothing(make_result):
    nothing = make_result([], SHAPE)[1].instances
    found = compare(nothing, nothing)
    assert found.rows() == [] and [int(d.max()) for d, _, _ in comparison_layers(found)] == [0, 0, 0]

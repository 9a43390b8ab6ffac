"""Label maps to instances and masks, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.label_maps import (
    connected_components,
    instances_of_label_map,
    label_windows,
    masks_of_labels,
    paint_labels,
)
from medmaskrcnn.structures.mask import Mask

LABELS = np.zeros((3, 5, 6), np.uint16)
LABELS[0:2, 0:4, 0:4] = 1  # liver
LABELS[1, 1:3, 1:3] = 7  # tumour in it
LABELS[1, 1, 1] = 9  # necrosis in that
LABELS[2, 4, 5] = 3  # another object
GRID = Grid(LABELS.shape, np.eye(4))
CLASSES = {7: "tumour", 1: "liver", 9: "necrosis", 3: "liver"}


def test_each_value_is_an_object() -> None:
    got = instances_of_label_map(LABELS, GRID, CLASSES)
    assert got.class_names == ("tumour", "liver", "necrosis")
    assert got.labels.tolist() == [0, 1, 2, 1]
    assert [m.n_voxels for m in got.masks] == [3, 28, 1, 1]
    assert (got.masks[0].start, got.masks[0].end) == ((1, 1, 1), (2, 3, 3))
    assert got.boxes[3].tolist() == [2, 4, 5, 3, 5, 6]


def test_parts_belong_to_all_that_hold_them() -> None:
    got = instances_of_label_map(
        LABELS, GRID, CLASSES, part_of={9: 7, 7: 1}, class_names=["liver", "tumour", "necrosis"]
    )
    assert got.labels.tolist() == [1, 0, 2, 0]
    assert [m.n_voxels for m in got.masks] == [4, 32, 1, 1]
    assert np.array_equal(got.masks[1].dense(LABELS.shape), np.isin(LABELS, [1, 7, 9]))


def test_of_a_part_outside_the_whole_widens_its_box() -> None:
    got = instances_of_label_map(LABELS, GRID, {1: "liver", 3: "tumour"}, part_of={3: 1})
    assert (got.masks[0].start, got.masks[0].end) == ((0, 0, 0), (3, 5, 6))


def test_leaves_out_what_is_not_there() -> None:
    got = instances_of_label_map(LABELS, GRID, {5: "a", 3: "b", 40: "c"})
    assert [got.class_names[i] for i in got.labels] == ["b"]
    assert len(instances_of_label_map(LABELS, GRID, {})) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_map": LABELS[:2]}, "grid's shape"),
        ({"label_map": LABELS.astype(float)}, "integers"),
        ({"classes": {0: "x"}}, "1 or more"),
        ({"class_names": ["liver"]}, "not among"),
        ({"part_of": {9: 7, 7: 9}}, "circle"),
        ({"part_of": {9: 11}}, "speaks of values"),
    ],
)
def test_what_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instances_of_label_map(**{"label_map": LABELS, "grid": GRID, "classes": CLASSES, **change})  # type: ignore[arg-type]


def test_of_a_semantic_map_each_connected_part_is_an_object() -> None:
    classes = np.array([[2, 2, 0, 1], [0, 0, 2, 0], [2, 0, 0, 1]])[None]
    got = instances_of_label_map(classes, Grid((1, 3, 4), np.eye(4)), {1: "spot", 2: "cell"}, kind="semantic")
    assert [got.class_names[i] for i in got.labels] == ["spot", "spot", "cell", "cell"]
    assert [(m.start[1:], m.n_voxels) for m in got.masks] == [((0, 3), 1), ((2, 3), 1), ((0, 0), 3), ((2, 0), 1)]


def test_large_and_negative_values() -> None:
    labels = np.array([[[0, -5, 2**40, 3], [2**40, 0, 3, 0]]])
    assert label_windows(labels) == {3: np.s_[0:1, 0:2, 2:4], 2**40: np.s_[0:1, 0:2, 0:3]}
    found = masks_of_labels(labels)
    assert list(found) == [3, 2**40] and found[2**40].array.tolist() == [[[False, False, True], [True, False, False]]]
    assert list(masks_of_labels(labels, [2**40, 4, 3])) == [2**40, 3]


label_maps = arrays.arrays(
    st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.int64]), (3, 4, 5), elements=st.integers(0, 6)
)


@given(label_maps, st.sampled_from(["C", "F"]))
def test_masks_of_labels_are_the_voxels_of_each_value(labels: np.ndarray, order: str) -> None:
    found = masks_of_labels(np.asarray(labels, order=order))  # type: ignore[call-overload]
    assert list(found) == [value for value in range(1, 7) if (labels == value).any()]
    for value, mask in found.items():
        assert np.array_equal(mask.dense((3, 4, 5)), labels == value)
        assert mask == mask.tight() and mask.array.flags.c_contiguous
    back = paint_labels(list(found.values()), (3, 4, 5), labels.dtype, values=list(found))
    assert np.array_equal(back, labels)


@given(arrays.arrays(np.bool_, (3, 4, 5)))
def test_connected_components_share_and_lose_nothing_and_do_not_touch(array: np.ndarray) -> None:
    mask = Mask((2, 0, 7), array)
    parts = connected_components(mask)
    assert mask.tight() == Mask.empty().union(*parts).tight() or not array.any()
    assert sum(part.n_voxels for part in parts) == mask.n_voxels
    for part in parts:
        assert part == part.tight()
        around = Mask([a - 1 for a in part.start], np.ones(np.add(part.array.shape, 2), bool))
        assert len(connected_components(part)) == 1
        assert all(not _touch(part, other) for other in parts if other is not part and around.overlap(other))


def _touch(one: Mask, other: Mask) -> bool:
    apart = np.abs((np.argwhere(one.array) + one.start)[:, None] - (np.argwhere(other.array) + other.start))
    return bool((apart.max(axis=2) <= 1).any())


def test_later_masks_cover_earlier_ones() -> None:
    masks = [Mask((0, 0, 0), np.ones((1, 1, 3), bool)), Mask((0, 0, 2), np.ones((1, 1, 2), bool))]
    painted = paint_labels(masks, (1, 1, 5), np.uint8)
    assert painted.dtype == np.uint8 and painted.tolist() == [[[1, 1, 2, 2, 0]]]
    assert paint_labels(masks, (1, 1, 5), np.uint16, values=[9, 4]).tolist() == [[[9, 9, 4, 4, 0]]]

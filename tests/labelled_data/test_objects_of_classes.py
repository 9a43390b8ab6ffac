"""From maps of classes to objects, and from objects to label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets import objects as module
from medmaskrcnn_datasets.objects import ClassRules, objects_of_classes, packed_maps

PICTURE = np.array(
    [
        [1, 1, 0, 2, 0, 0],
        [1, 1, 0, 0, 2, 0],
        [0, 0, 0, 0, 0, 0],
        [3, 0, 0, 1, 3, 3],
    ]
)[None]


def dense(one: LabelledObject, shape: tuple[int, ...] = PICTURE.shape) -> np.ndarray:
    return one.mask.dense(shape)


def found(classes: dict[str, tuple[int, ...]], **rules) -> list[tuple[str, np.ndarray]]:
    return [(o.class_name, dense(o)) for o in objects_of_classes(PICTURE, classes, ClassRules(**rules))]


def test_each_value_is_an_object() -> None:
    (name, left), (_, right) = found({"kidney": (2, 3)})
    assert name == "kidney"
    assert np.array_equal(left, PICTURE == 2) and np.array_equal(right, PICTURE == 3)


def test_a_class_is_one_object() -> None:
    ((_, both),) = found({"kidney": (2, 3)}, default="one")
    assert np.array_equal(both, (PICTURE == 2) | (PICTURE == 3))


def test_connected_parts_are_objects_largest_first_and_touch_at_corners() -> None:
    parts = [mask for _, mask in found({"kidney": (2, 3)}, default="components")]
    assert [int(mask.sum()) for mask in parts] == [2, 2, 1]
    assert np.array_equal(parts[0], PICTURE == 2)  # two voxels that meet at a corner
    sizes = [int(m.sum()) for _, m in found({"liver": (1,), "spot": (3,)}, default="components", least_voxels=2)]
    assert sizes == [4, 2]


def test_rules_of_single_classes_and_regions_that_overlap() -> None:
    masks = found({"whole": (1, 3), "core": (3,)}, by_class={"whole": "one", "core": "components"})
    assert [name for name, _ in masks] == ["whole", "core", "core"]
    assert np.array_equal(masks[0][1], (PICTURE == 1) | (PICTURE == 3))


def test_inner_objects_belong_to_the_outer_object_that_they_touch_most() -> None:
    masks = found(
        {"organ": (3,), "tumour": (1,)},
        by_class={"organ": "components", "tumour": "components"},
        within={"tumour": "organ"},
    )
    organs = [mask for name, mask in masks if name == "organ"]
    assert organs[0][0, 3].tolist() == [False, False, False, True, True, True]  # with the tumour's voxel at its side
    assert organs[1].sum() == 1 and organs[0].sum() == 3  # the tumour of four voxels touches none
    assert sum(name == "tumour" for name, _ in masks) == 2


def test_classes_under_new_names() -> None:
    classes = {"right kidney": (2,), "left kidney": (3,), "body": (1,)}
    rules = ClassRules(rename={"right kidney": "kidney", "left kidney": "kidney", "body": ""})
    assert rules.named(classes) == {"kidney": (2, 3)}
    for wrong in (
        ClassRules(rename={"lung": "x"}),
        ClassRules(by_class={"lung": "one"}),
        ClassRules(within={"body": "lung"}),
        ClassRules(rename={"body": ""}, by_class={"body": "one"}),
    ):
        with pytest.raises(ValueError, match="rules speak of classes"):
            wrong.named(classes)


@pytest.mark.parametrize(
    ("rules", "classes", "kept"),
    [
        (ClassRules(), {"kidney": (2, 3)}, True),
        (ClassRules("one"), {"kidney": (2,)}, True),
        (ClassRules("one"), {"kidney": (2, 3)}, False),
        (ClassRules("components"), {"kidney": (2,)}, False),
        (ClassRules(), {"whole": (1, 2), "core": (2,)}, False),
        (ClassRules(within={"core": "whole"}), {"whole": (1,), "core": (2,)}, False),
    ],
)
def test_a_map_serves_as_it_is_where_each_value_is_one_object(rules, classes, kept) -> None:
    assert rules.keep_values(classes) is kept


@given(arrays.arrays(np.bool_, st.tuples(st.integers(0, 6), st.just(2), st.just(3), st.just(4))))
def test_packed_objects_are_found_again_whatever_they_share(masks: np.ndarray) -> None:
    """What the maps say, read as training reads it, are the same masks."""
    given_objects = [LabelledObject("cell", Mask((0, 0, 0), mask)) for mask in masks]
    maps, instances = packed_maps(given_objects, (2, 3, 4))
    kept = [mask for mask in masks if mask.any()]
    assert len(instances) == len(kept) and 1 <= len(maps) <= max(1, len(kept))
    for mask, instance in zip(kept, instances, strict=True):
        assert np.array_equal(maps[instance.map] == instance.value, mask)


def test_objects_apart_share_one_map() -> None:
    objects = objects_of_classes(PICTURE, {"a": (1,), "b": (2,), "c": (3,)}, ClassRules("components"))
    maps, instances = packed_maps(objects, (1, 4, 6))
    assert len(maps) == 1 and [i.value for i in instances] == [1, 2, 3, 4, 5]


def test_more_objects_than_a_map_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OBJECTS", 3)
    voxels = [LabelledObject("cell", Mask((0, 0, x), np.ones((1, 1, 1), bool))) for x in range(4)]
    assert len(packed_maps(voxels[:3], (1, 1, 4))[1]) == 3
    with pytest.raises(ValueError, match="more than 3 objects"):
        packed_maps(voxels, (1, 1, 4))


def test_a_scan_that_is_only_background() -> None:
    assert objects_of_classes(np.zeros((1, 2, 2), np.int32), {"liver": (1,)}, ClassRules("components")) == []
    maps, instances = packed_maps([], (1, 2, 2))
    assert len(maps) == 1 and not maps[0].any() and instances == ()

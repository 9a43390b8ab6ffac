"""What is unknown or to be ignored in a case counts neither way: by hand, as properties, and against pycocotools."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.evaluation.evaluate import CasePair, Evaluation, evaluate_results
from medmaskrcnn.evaluation.metrics.summary import ClassFigures, MetricSettings
from medmaskrcnn.evaluation.reference import reference_of
from medmaskrcnn.structures.class_names import match_class_names
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask

Labelled = Callable[..., Path]
SHAPE = (6, 40, 60)
GRID = Grid(SHAPE, np.diag([1.0, 1, 2, 1]))
NAMES = ("liver", "tumour")
LIVER, TUMOUR, REGION = np.s_[1:5, 2:18, 2:22], np.s_[2:4, 22:30, 4:12], np.s_[0:6, 0:40, 40:60]
QUICK = MetricSettings(replicates=0)


def instances(*parts: tuple[str, tuple[slice, ...], float]) -> Instances:
    masks = []
    for _, window, _ in parts:
        mask = np.zeros(SHAPE, bool)
        mask[window] = True
        masks.append(Mask((0, 0, 0), mask).tight())
    return Instances.from_masks(GRID, NAMES, [NAMES.index(p[0]) for p in parts], masks, scores=[p[2] for p in parts])


TRUTH = instances(("liver", LIVER, 1), ("tumour", TUMOUR, 1), ("tumour", REGION, 1))
CROWD = np.array([False, False, True])


def evaluated(predicted: Instances, **options: object) -> Evaluation:
    plain = {"crowd": CROWD, "reference": TRUTH, **options}
    reference = plain.pop("reference")
    settings_ = plain.pop("settings", QUICK)
    pair = CasePair("c", "p", predicted, reference, **plain)
    return evaluate_results([pair], class_names=NAMES, score=0.5, settings=settings_)


def figures(table: ClassFigures) -> dict[str, float | None]:
    """Everything but the number of predictions, and recall of few predictions, whose number COCO limits before."""
    parts = {"mask": table.mask, "box": table.box, "outline": table.outline}
    values = {f"{kind} {name}": one.value for kind, part in parts.items() for name, one in part.items()}
    values = {name: value for name, value in values.items() if name.rpartition("_")[2] not in ("1", "10")}
    curve = {f"froc {i}": one.value for i, one in enumerate(table.froc_curve or ())}
    return {**values, **curve, "references": table.references}


def all_figures(found: Evaluation) -> dict[str, dict[str, float | None]]:
    return {"overall": figures(found.overall), **{name: figures(table) for name, table in found.classes.items()}}


FOUND = (("liver", np.s_[1:5, 2:18, 3:22], 0.9), ("tumour", TUMOUR, 0.8), ("tumour", np.s_[0:2, 30:36, 20:26], 0.7))


def test_a_region_to_ignore_is_neither_found_nor_missed_nor_false() -> None:
    without = evaluated(instances(*FOUND), reference=TRUTH.select([0, 1]), crowd=None)
    assert without.classes["tumour"].mask["precision"].value == 0.5
    inside = [("tumour", np.s_[1:3, a : a + 6, 44:52], s) for a, s in ((2, 0.95), (10, 0.75), (20, 0.6))]
    whole = ("tumour", REGION, 0.99)
    for more in ([], inside, [*inside, whole]):
        assert all_figures(evaluated(instances(*FOUND, *more))) == all_figures(without)
    wrong_class = evaluated(instances(*FOUND, ("liver", np.s_[1:3, 2:8, 44:52], 0.95)))
    assert wrong_class.classes["liver"].mask["precision"].value == 0.5  # ignored for tumours alone


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_lies_in_a_region_changes_no_figure(data: st.DataObject) -> None:
    low = [data.draw(st.integers(a, b)) for a, b in ((0, 4), (0, 36), (40, 57))]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, SHAPE, strict=True)]
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    more = ("tumour", window, data.draw(st.floats(0.01, 1)))
    assert all_figures(evaluated(instances(*FOUND, more))) == all_figures(evaluated(instances(*FOUND)))


@pytest.mark.parametrize(("start", "errors"), [(32, 1), (34, 1), (35, 0), (37, 0)])
def test_a_prediction_lies_in_a_region_by_its_own_size(start: int, errors: int) -> None:
    """Of ten columns, those from 40 on lie inside: from half of them on (IoU 0.5) it is no error, COCO's rule."""
    found = evaluated(instances(*FOUND[:2], ("tumour", np.s_[1:3, 2:8, start : start + 10], 0.95)))
    assert found.classes["tumour"].mask["false_positives_per_case"].value == errors
    assert found.classes["tumour"].mask["recall"].value == 1.0


def test_ignored_voxels_count_in_no_outline() -> None:
    """The region covers a quarter of the tumour's prediction and a part of the tumour itself."""
    region, tumour = np.s_[0:6, 0:40, 20:40], np.s_[2:4, 5:15, 8:24]
    truth = instances(("liver", LIVER, 1), ("tumour", tumour, 1), ("tumour", region, 1))
    right = instances(("tumour", np.s_[2:4, 5:15, 8:20], 0.9))  # all that is known of it
    beyond = instances(("tumour", np.s_[2:4, 5:15, 8:26], 0.9))
    for predicted in (right, beyond):
        found = evaluated(predicted, reference=truth).classes["tumour"]
        assert found.outline["dice"].value == 1.0 and found.outline["class_dice"].value == 1.0
        assert found.outline["hd95"].value == 0.0 and found.outline["nsd"].value == 1.0
        assert found.outline["median_volume_error"].value == 0.0
        assert found.mask["pq"].value == found.mask["sq"].value == 1.0
    counted = evaluated(beyond, reference=truth.select([0, 1]), crowd=None).classes["tumour"]
    assert counted.outline["dice"].value == pytest.approx(2 * 16 / (16 + 18))  # columns


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_ignored_voxels_may_be_anything(seed: int) -> None:
    """Dice of a class is that of the other voxels, whatever both sides hold in the region."""
    random = np.random.default_rng(seed)
    region = np.zeros(SHAPE, bool)
    region[random.random(SHAPE) < 0.3] = True
    sides, values = [], []
    for _ in range(2):
        mask = np.zeros(SHAPE, bool)
        mask[1:5, 5 : int(random.integers(12, 30)), 5 : int(random.integers(12, 40))] = True
        changed = np.where(region, random.random(SHAPE) < 0.5, mask)
        values.append((mask & ~region).copy())
        sides.append(Mask((0, 0, 0), changed).tight())
    made = [Instances.from_masks(GRID, NAMES, [1], [side], scores=[1.0]) for side in sides]
    crowd_mask = Mask((0, 0, 0), region).tight()
    truth = Instances.from_masks(GRID, NAMES, [1, 1], [sides[1], crowd_mask])
    found = evaluated(made[0], reference=truth, crowd=np.array([False, True])).classes["tumour"]
    expected = 2 * np.count_nonzero(values[0] & values[1]) / (values[0].sum() + values[1].sum())
    assert found.outline["class_dice"].value == pytest.approx(expected)


def test_an_object_of_which_nothing_is_known_need_not_be_found() -> None:
    truth = instances(("tumour", np.s_[2:4, 5:15, 42:50], 1), ("tumour", REGION, 1))
    found = evaluated(instances(), reference=truth, crowd=np.array([False, True])).classes["tumour"]
    assert found.references == 0 and found.mask["recall"].value is None


def test_classes_that_were_not_annotated_count_neither_way() -> None:
    complete = CasePair("all", "p", instances(*FOUND), TRUTH, crowd=CROWD)
    liver_only = CasePair(
        "partly",
        "q",
        instances(("liver", LIVER, 0.9), ("tumour", TUMOUR, 0.95)),
        TRUTH.select([0]),
        annotated=("liver",),
    )

    def evaluate(*pairs: CasePair) -> Evaluation:
        return evaluate_results(pairs, class_names=NAMES, score=0.5, settings=QUICK)

    one, both = evaluate(complete), evaluate(complete, liver_only)
    assert figures(both.classes["tumour"]) == figures(one.classes["tumour"])  # its cases are those annotated for it
    assert both.classes["liver"].references == 2
    without = replace(liver_only, predicted=liver_only.predicted.select([0]))
    assert all_figures(evaluate(complete, without)) == all_figures(both)
    punished = evaluate(complete, replace(liver_only, annotated=None))
    assert punished.classes["tumour"].mask["ap50"].value < both.classes["tumour"].mask["ap50"].value
    assert both.cases[1].class_dice == (1.0, None) and both.cases[1].error == 0.0


def test_a_class_that_was_annotated_nowhere_has_no_figures() -> None:
    pair = CasePair("c", "p", instances(*FOUND), TRUTH.select([0]), annotated=("liver",))
    found = evaluate_results([pair], class_names=NAMES, score=0.5, settings=QUICK)
    assert all(one.value is None for one in found.classes["tumour"].mask.values())
    assert found.overall.mask["false_positives_per_case"].value == 0.0
    nowhere = evaluate_results([replace(pair, annotated=())], class_names=NAMES, score=0.5, settings=QUICK)
    assert nowhere.overall.mask["false_positives_per_case"].value is None


def test_the_reference_of_a_case_holds_its_regions(labelled: Labelled) -> None:
    path = labelled()
    manifest = json.loads(path.read_text())
    liver, tumour = manifest["cases"][0]["instances"]
    for changes, classes, expected in (
        ({}, ("spleen", "liver"), [("liver", False)]),
        ({}, ("tumour", "liver"), [("tumour", False), ("liver", False)]),
        ({"ignore": True}, NAMES, [("liver", False), ("tumour", True)]),
        ({"ignore": True, "class": None}, NAMES, [("liver", False), ("liver", True), ("tumour", True)]),
        ({"ignore": True}, ("liver",), [("liver", False)]),
        ({"ignore": True, "class": None}, ("tumour",), [("tumour", True)]),
    ):
        manifest["cases"][0]["instances"] = [liver, {**tumour, **changes}]
        path.write_text(json.dumps(manifest))
        read = read_manifest(path)
        reference = reference_of(read_case(read, read.cases[0]), match_class_names(classes, NAMES))
        names = reference.instances.class_names
        got = [names[label] for label in reference.instances.labels]
        assert sorted(zip(got, reference.crowd.tolist(), strict=True)) == sorted(expected)
        assert (reference.instances.scores == 1).all() and reference.annotated == names


def test_a_class_made_of_several_is_annotated_if_all_of_them_were(labelled: Labelled) -> None:
    path = labelled()
    manifest = json.loads(path.read_text())
    manifest["cases"][0]["annotated"] = ["liver", "tumour"]
    manifest["class_names"] = ["liver", "tumour", "metastasis"]
    path.write_text(json.dumps(manifest))
    read = read_manifest(path)
    scan = read_case(read, read.cases[0])
    apart = match_class_names(("liver", "tumour", "metastasis"), read.class_names)
    assert reference_of(scan, apart).annotated == ("liver", "tumour")
    joined = match_class_names(
        ("liver", "lesion"), read.class_names, rename={"tumour": "lesion", "metastasis": "lesion"}
    )
    assert set(joined.names) == {"liver", "lesion"}
    assert reference_of(scan, joined).annotated == ("liver",)


def test_a_case_is_known_to_be_empty_only_of_what_was_annotated() -> None:
    pairs = [
        CasePair("all", "p", instances(("tumour", TUMOUR, 0.9)), instances()),
        CasePair("partly", "q", instances(("tumour", TUMOUR, 0.9)), instances(), annotated=("liver",)),
    ]
    found = evaluate_results(pairs, class_names=NAMES, score=0.5, settings=QUICK)
    assert [found.classes[name].empty_cases for name in NAMES] == [2, 1] and found.overall.empty_cases == 1
    assert found.classes["tumour"].mask["specificity"].value == 0.0
    assert found.classes["liver"].mask["specificity"].value == 1.0

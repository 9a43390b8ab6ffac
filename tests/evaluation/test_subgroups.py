"""Tables by the labels of the cases, and false findings where there is nothing to find, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.evaluation.evaluate import CasePair, Evaluation, evaluate_results
from medmaskrcnn.evaluation.files import write_evaluation
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.evaluation.subgroups import UNKNOWN, check_labels
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask

GRID = Grid((4, 30, 30), np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]]))
NAMES = ("liver", "tumour")
PLACES = {"a": (0, 2, 2), "b": (0, 12, 12), "c": (0, 22, 22)}


def found(*parts: tuple[str, str]) -> Instances:
    """Cubes of a class at a place."""
    masks = [Mask(PLACES[place], np.ones((3, 5, 5), bool)) for _, place in parts]
    return Instances.from_masks(GRID, NAMES, [NAMES.index(name) for name, _ in parts], masks)


def pair(name: str, predicted: Instances, reference: Instances, **labels: Any) -> CasePair:
    return CasePair(name, f"patient {name}", predicted, reference, case_labels=labels)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Scanner A finds all; B misses a tumour, and invents two in cases without; one of those has no object at all."""
    liver, tumour = ("liver", "a"), ("tumour", "b")
    pairs = [
        pair("1", found(liver, tumour), found(liver, tumour), scanner="A", age=40, contrast=True),
        pair("2", found(liver), found(liver), scanner="A", age=50, contrast=False),
        pair("3", found(liver), found(liver, tumour), scanner="B", age=60),
        pair("4", found(liver, ("tumour", "c"), ("tumour", "b")), found(liver), scanner="B", age=70),
        pair("5", found(), found(), scanner="B", age=80),
        pair("6", found(("tumour", "c")), found(), scanner="B", age=90),
        pair("7", found(liver), found(liver), age=35.5),
    ]
    settings = MetricSettings(replicates=200)
    by = ("scanner", "age", "contrast")
    return evaluate_results(pairs, class_names=NAMES, score=0.5, settings=settings, by=by)


def test_cases_without_an_object(evaluation: Evaluation) -> None:
    tumour = evaluation.classes["tumour"]
    assert tumour.empty_cases == 5  # 2, 4, 5, 6, 7
    assert tumour.mask["false_positives_per_empty_case"].value == pytest.approx(3 / 5)
    assert tumour.mask["specificity"].value == pytest.approx(3 / 5)
    assert evaluation.classes["liver"].empty_cases == 2
    assert evaluation.classes["liver"].mask["specificity"].value == 1.0
    overall = evaluation.overall
    assert overall.empty_cases == 2  # 5 and 6 hold nothing at all
    assert overall.mask["false_positives_per_empty_case"].value == pytest.approx(1 / 2)
    assert overall.mask["specificity"].value == pytest.approx(1 / 2)
    low, high = (getattr(tumour.mask["specificity"], bound) for bound in ("low", "high"))
    assert 0 <= low < 3 / 5 < high <= 1


def test_every_case_with_an_object_leaves_them_undefined() -> None:
    got = evaluate_results(
        [pair("1", found(("liver", "a")), found(("liver", "a")))],
        class_names=NAMES[:1],
        score=0.5,
        settings=MetricSettings(replicates=0),
    )
    assert got.overall.empty_cases == 0 and got.overall.mask["specificity"].value is None
    assert got.subgroups == ()


def test_a_subgroup_is_the_evaluation_of_its_cases(evaluation: Evaluation) -> None:
    groups = {(one.label, one.value): one for one in evaluation.subgroups}
    assert [value for label, value in groups if label == "scanner"] == ["A", "B", UNKNOWN]
    a, b = groups["scanner", "A"], groups["scanner", "B"]
    assert (a.cases, b.cases, groups["scanner", UNKNOWN].cases) == (2, 4, 1)
    assert a.classes["tumour"].mask["recall"].value == 1.0 and b.classes["tumour"].mask["recall"].value == 0.0
    assert b.classes["tumour"].mask["false_positives_per_case"].value == pytest.approx(3 / 4)
    assert (b.classes["tumour"].empty_cases, b.overall.empty_cases) == (3, 2)
    assert b.classes["liver"].outline["dice"].value == 1.0
    assert b.classes["tumour"].mask["false_positives_per_case"].low is not None
    assert sum(one.classes["liver"].references for one in (a, b, groups["scanner", UNKNOWN])) == 5


def test_numbers_of_many_values_are_cut_at_their_tertiles(evaluation: Evaluation) -> None:
    ages = [(one.value, one.cases) for one in evaluation.subgroups if one.label == "age"]
    assert ages == [("up to 50", 3), ("50 to 70", 2), ("above 70", 2)]
    contrast = [(one.value, one.cases) for one in evaluation.subgroups if one.label == "contrast"]
    assert contrast == [("no", 1), ("yes", 1), (UNKNOWN, 5)]


def test_labels_that_make_no_subgroups() -> None:
    labels = [{"scanner": "A", "note": f"free text {n}"} for n in range(30)]
    check_labels(["scanner"], labels)
    for by, told in (("site", r"'site'.*note, scanner"), ("note", "30 values")):
        with pytest.raises(InvalidOptionError, match=told) as caught:
            check_labels([by], labels)
        assert caught.value.option == "by"
    with pytest.raises(InvalidOptionError, match="no case labels"):
        check_labels(["site"], [{}])


def test_files_and_page_have_them(evaluation: Evaluation, tmp_path: Path) -> None:
    files = write_evaluation(evaluation, tmp_path)
    document = json.loads(files["evaluation.json"].read_text())
    group = next(one for one in document["subgroups"] if one["value"] == "B")
    assert (group["label"], group["n_cases"], group["n_patients"]) == ("scanner", 4, 4)
    assert group["classes"]["tumour"]["empty_cases"] == 3
    assert document["classes"]["tumour"]["mask"]["specificity"]["value"] == pytest.approx(0.6)
    page = files["evaluation.html"].read_text()
    assert "By scanner" in page and "above 70" in page and "cases without an object" in page

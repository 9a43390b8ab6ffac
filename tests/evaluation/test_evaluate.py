"""Evaluations of results made by hand: figures one can check, files, pictures; and cases that are chosen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.evaluation.evaluate import CasePair, Evaluation, choose_cases, evaluate_results
from medmaskrcnn.evaluation.files import evaluation_document, write_evaluation
from medmaskrcnn.evaluation.metrics.summary import FROC_CURVE_POINTS, MetricSettings
from medmaskrcnn.evaluation.pictures import ROLES, draw_errors, errors_per_slice
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

SHAPE = (10, 40, 48)
AFFINE = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])  # SPL, 3 x 1 x 1 mm
GRID = Grid(SHAPE, AFFINE)
NAMES = ("liver", "tumour")
LIVER, MOVED, TUMOUR, STRAY = (
    np.s_[2:8, 5:25, 5:25],  # 2400 voxels
    np.s_[2:8, 5:25, 7:27],  # 2160 of them and 240 others: IoU 2160 / 2640, Dice 0.9
    np.s_[4:6, 10:14, 10:14],  # 32 voxels, 96 mm³: a ball of 5.7 mm
    np.s_[8:9, 30:36, 30:36],
)


def boxes_of_voxels(parts: list[tuple[str, tuple[slice, ...], float]], grid: Grid = GRID) -> Instances:
    """Instances ``(class, window, score)`` that fill windows of the grid."""
    crops = []
    for _, window, _ in parts:
        mask = np.zeros(grid.shape, bool)
        mask[window] = True
        crops.append(Mask((0, 0, 0), mask).tight())
    labels, scores = [NAMES.index(name) for name, _, _ in parts], [score for _, _, score in parts]
    return Instances.from_masks(grid, NAMES, labels, crops, scores=scores)


TRUTH = boxes_of_voxels([("liver", LIVER, 1), ("tumour", TUMOUR, 1)])


def volume() -> Volume:
    array = np.random.default_rng(0).normal(100, 5, (1, *SHAPE)).astype(np.float32)
    array[0][LIVER] += 60
    return Volume(array, GRID, modality="MR")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Three cases of two patients: all right; tumour missed and something invented; the liver moved by 2 mm."""
    predictions = {
        "good": ("ann", [("liver", LIVER, 0.9), ("tumour", TUMOUR, 0.8), ("tumour", STRAY, 0.2)]),
        "bad": ("ann", [("liver", LIVER, 0.9), ("tumour", STRAY, 0.85)]),
        "moved": ("ben", [("liver", MOVED, 0.95), ("tumour", TUMOUR, 0.7)]),
    }
    pairs = (
        CasePair(name, patient, boxes_of_voxels(found), TRUTH, volume=volume(), seconds=1.5)
        for name, (patient, found) in predictions.items()
    )
    settings = MetricSettings(replicates=200)
    return evaluate_results(pairs, class_names=NAMES, score=0.5, settings=settings, pictures=2)


def test_figures_by_hand(evaluation: Evaluation) -> None:
    liver, tumour = evaluation.classes["liver"], evaluation.classes["tumour"]
    assert (liver.references, liver.predictions) == (3, 3)
    assert (tumour.references, tumour.predictions) == (3, 3)  # the one at 0.2 is below the score
    assert liver.mask["ap50"].value == pytest.approx(1.0)
    assert liver.mask["recall"].value == 1.0 and liver.mask["false_positives_per_case"].value == 0
    assert tumour.mask["recall"].value == pytest.approx(2 / 3)
    assert tumour.mask["precision"].value == pytest.approx(2 / 3)
    assert tumour.mask["false_positives_per_case"].value == pytest.approx(1 / 3)
    assert tumour.mask["dsb50"].value == pytest.approx((1 + 0 + 1) / 3)
    assert liver.outline["dice"].value == pytest.approx((1 + 1 + 0.9) / 3)
    assert tumour.outline["dice"].value == 1.0
    assert tumour.outline["dice_with_missed"].value == pytest.approx(2 / 3)
    assert tumour.outline["class_dice"].value == pytest.approx((1 + 0 + 1) / 3)
    assert liver.outline["hd95"].value == pytest.approx((0 + 0 + 2.0) / 3)  # moved by two voxels of 1 mm
    assert liver.outline["nsd"].value == 1.0  # within 2 mm
    # hits at 0.8 and 0.7, an error at 0.85 above them: precisions 0, 1/2, 2/3; recall ends at 2/3 (67 of 101 points)
    assert tumour.mask["ap50"].value == pytest.approx(67 / 101 * 2 / 3)
    assert tumour.mask["ap_small"].value == pytest.approx(tumour.mask["ap"].value)
    assert tumour.mask["ap_large"].value is None
    overall = evaluation.overall
    assert overall.mask["recall"].value == pytest.approx((1 + 2 / 3) / 2)
    assert overall.mask["false_positives_per_case"].value == pytest.approx(1 / 3)
    assert overall.references == 6


def test_intervals_are_over_patients(evaluation: Evaluation) -> None:
    """Of the two patients either may be drawn alone: recall of tumours lies between Ann's 1/2 and Ben's 1."""
    recall = evaluation.classes["tumour"].mask["recall"]
    assert (recall.low, recall.high) == (pytest.approx(0.5), pytest.approx(1.0))
    dice = evaluation.classes["liver"].outline["dice"]
    assert (dice.low, dice.high) == (pytest.approx(0.9), pytest.approx(1.0))


def test_worst_first_with_their_pictures(evaluation: Evaluation) -> None:
    assert [case.id for case in evaluation.worst_first] == ["bad", "moved", "good"]
    assert set(evaluation.pictures) == {"bad", "moved"}
    good = evaluation.cases[0]
    assert good.error == 0.0
    # one found (Dice 1), one missed, one invented: 1 - 1 / (1 + 1 / 2 + 1 / 2)
    assert evaluation.cases[1].error == pytest.approx(0.5)


def test_smaller_objects_need_not_be_found() -> None:
    pair = CasePair("c", "p", boxes_of_voxels([("liver", LIVER, 0.9)]), TRUTH)
    got = evaluate_results([pair], class_names=NAMES, score=0.5, settings=MetricSettings(min_diameter=6, replicates=0))
    assert got.classes["tumour"].references == 0
    assert got.classes["tumour"].mask["recall"].value is None
    assert got.overall.mask["recall"].value == 1.0
    both = CasePair("c", "p", boxes_of_voxels([("liver", LIVER, 0.9), ("tumour", TUMOUR, 0.9)]), TRUTH)
    got = evaluate_results([both], class_names=NAMES, score=0.5, settings=MetricSettings(min_diameter=6, replicates=0))
    assert got.classes["tumour"].mask["false_positives_per_case"].value == 0


def test_files(evaluation: Evaluation, tmp_path: Path) -> None:
    files = write_evaluation(evaluation, tmp_path / "deep" / "out")
    assert set(files) == {"evaluation.json", "cases.csv", "froc.png", "evaluation.html"}
    text = files["evaluation.json"].read_text()
    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert document["n_cases"] == 3 and document["n_patients"] == 2
    assert document["length_unit"] == "mm"
    assert document["classes"]["tumour"]["mask"]["ap_large"] == {"value": None, "low": None, "high": None}
    assert document["overall"]["mask"]["recall"]["value"] == pytest.approx(5 / 6)
    assert [case["id"] for case in document["cases"]] == ["bad", "moved", "good"]
    assert [o["outcome"] for o in document["cases"][0]["objects"]] == ["found", "missed", "false positive"]
    assert len(document["overall"]["froc_curve"]) == len(FROC_CURVE_POINTS)
    rows = list(csv.DictReader(files["cases.csv"].open()))
    assert [row["id"] for row in rows] == ["bad", "moved", "good"]
    assert float(rows[1]["class_dice liver"]) == pytest.approx(0.9, abs=1e-4)
    plot = Image.open(files["froc.png"])
    assert len(plot.convert("RGB").getcolors(1 << 24) or ()) > 50
    page = files["evaluation.html"].read_text()
    assert page.index("bad: reference") < page.index("moved: reference")
    assert page.count('<div class="case">') == 2 and "<script" not in page


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    pair = CasePair("<b>&", "<i>", boxes_of_voxels([("liver", LIVER, 0.9)]), TRUTH, volume=volume())
    got = evaluate_results([pair], class_names=NAMES, score=0.5, settings=MetricSettings(replicates=0), pictures=1)
    page = write_evaluation(got, tmp_path)["evaluation.html"].read_text()
    assert "<b>&" not in page and "&lt;b&gt;&amp;" in page and "<i>" not in page


def test_the_picture_shows_the_slice_with_the_largest_error() -> None:
    predicted = boxes_of_voxels([("liver", MOVED, 0.9), ("tumour", STRAY, 0.8)])
    settings = MetricSettings(replicates=0)
    pair = CasePair("c", "p", predicted, TRUTH)
    (case,) = evaluate_results([pair], class_names=NAMES, score=0.5, settings=settings).cases
    errors = errors_per_slice(predicted, TRUTH, case.objects, 0)
    # the liver's 2 x 2 columns of 20 in slices 2..7, the missed tumour in 4 and 5, the invented one in 8
    assert errors.tolist() == [0, 0, 80, 80, 96, 96, 80, 80, 36, 0]
    picture = np.asarray(draw_errors(volume(), predicted, TRUTH, case.objects)).reshape(-1, 3)
    for colour in class_colours(ROLES):
        assert (picture == colour).all(axis=1).sum() > 100
    perfect = evaluate_results([CasePair("c", "p", TRUTH, TRUTH)], class_names=NAMES, score=0.5, settings=settings)
    assert errors_per_slice(TRUTH, TRUTH, perfect.cases[0].objects, 0).argmax() == 4  # most of the objects


def test_a_case_without_objects_is_all_right() -> None:
    nothing = boxes_of_voxels([])
    pairs = [CasePair("empty", "a", nothing, nothing, volume=volume()), CasePair("full", "b", TRUTH, TRUTH)]
    settings = MetricSettings(replicates=0)
    got = evaluate_results(pairs, class_names=NAMES, score=0.5, settings=settings, pictures=5)
    assert set(got.pictures) == {"empty"}  # the other has no volume
    assert errors_per_slice(nothing, nothing, (), 0).argmax() == 5
    assert got.cases[0].class_dice == (None, None) and got.cases[0].error == 0
    assert got.overall.mask["dsb50"].value == 1.0
    alone = evaluate_results(pairs[:1], class_names=NAMES, score=0.5, settings=settings)
    assert alone.overall.mask["ap"].value is None and alone.overall.froc_curve is None
    assert evaluation_document(alone)["overall"]["froc_curve"] is None


def test_pictures_have_no_millimetres() -> None:
    grid = pixel_grid((1, 40, 48))
    found = boxes_of_voxels([("liver", np.s_[0:1, 5:25, 7:27], 0.9)], grid)
    truth = boxes_of_voxels([("liver", np.s_[0:1, 5:25, 5:25], 1)], grid)
    image = Volume(np.zeros((1, 1, 40, 48), np.uint8), grid)
    pair = CasePair("c", "p", found, truth, volume=image)
    got = evaluate_results([pair], class_names=NAMES, score=0.5, settings=MetricSettings(replicates=0), pictures=1)
    document = evaluation_document(got)
    assert document["length_unit"] == "px" and document["size_ranges"]["measure"] == "area in pixels"
    assert got.classes["liver"].outline["hd95"].value == 2.0
    assert got.pictures["c"].size[0] > 100


def test_mixed_units_give_no_mean_length() -> None:
    grid = Grid(SHAPE, AFFINE, spacing_known=False)
    other = boxes_of_voxels([("liver", LIVER, 1)], grid)
    pairs = [CasePair("a", "a", TRUTH, TRUTH), CasePair("b", "b", other, other)]
    got = evaluate_results(pairs, class_names=NAMES, score=0.5)
    assert got.overall.outline["hd95"].value is None and got.overall.outline["dice"].value == 1.0


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ValueError, match="no case"):
        evaluate_results([], class_names=NAMES, score=0.5)


def test_choosing_cases() -> None:
    cases = [
        ManifestCase(id=f"c{k}", patient="p", image="x.png", split=s) for k, s in enumerate(("train", "test", None))
    ]
    manifest = Manifest(name="m", class_names=NAMES, cases=tuple(cases))
    assert [case.id for case in choose_cases(manifest, "test", None)] == ["c1"]
    assert [case.id for case in choose_cases(manifest, "all", None)] == ["c0", "c1", "c2"]
    assert [case.id for case in choose_cases(manifest, "test", ["c2", "c0", "c2"])] == ["c2", "c0"]
    with pytest.raises(ValueError, match="no case c9"):
        choose_cases(manifest, "test", ["c0", "c9"])
    with pytest.raises(ValueError, match="'val'; its cases are in: None, test, train"):
        choose_cases(manifest, "val", None)

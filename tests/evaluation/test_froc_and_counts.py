"""COCO's matching by hand and by a plain loop, FROC by hand and against MONAI's, the other counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.froc import compute_froc_curve_data, compute_froc_score

from medmaskrcnn.evaluation.metrics.bootstrap import estimate, mean_of_defined, patient_weights
from medmaskrcnn.evaluation.metrics.counts import count, data_science_bowl_table, detection_table, panoptic_table
from medmaskrcnn.evaluation.metrics.froc import LUNA16_POINTS, froc
from medmaskrcnn.evaluation.metrics.match_detections import THRESHOLDS, MatchResult, match_detections
from medmaskrcnn.evaluation.metrics.pairing import PairedCase
from medmaskrcnn.evaluation.metrics.sizes import BALL_DIAMETERS_MM
from medmaskrcnn.structures.grid import Grid

GRID = Grid((8, 64, 64), np.diag([1.0, 1, 2, 1]))
NAMES = ("liver", "tumour", "never there")


def paired(
    iou: list[list[float]], scores: list[float], labels: list[int], true_labels: list[int], **flags: list[int]
) -> PairedCase:
    """A case of which only the agreement matters; predictions come by falling score."""
    n, m = len(labels), len(true_labels)
    crowd = np.isin(np.arange(m), flags.get("crowd", []))
    return PairedCase(
        patient="p",
        grid=GRID,
        labels=np.array(labels, np.int64),
        scores=np.array(scores, np.float64),
        n_voxels=np.full(n, 30.0),
        predicted=np.arange(n),
        reference=np.arange(m),
        true_labels=np.array(true_labels, np.int64),
        true_voxels=np.full(m, 30.0),
        crowd=crowd,
        ignored=crowd | np.isin(np.arange(m), flags.get("ignored", [])),
        iou=np.array(iou, np.float64).reshape(n, m),
    )


def matched(*cases: PairedCase) -> MatchResult:
    return match_detections(cases, NAMES, ranges=BALL_DIAMETERS_MM)


def once(verdict: MatchResult) -> np.ndarray:
    return np.ones((1, len(verdict.patients)))


# Two scans. Livers: one found well (0.9 at IoU 0.8), one roughly (0.7 at 0.55), one never; errors at 0.8 and 0.6.
TWO_SCANS = (
    paired([[0.8, 0], [0, 0.05], [0.7, 0]], [0.9, 0.8, 0.6], [0, 0, 0], [0, 0]),
    paired([[0.55]], [0.7], [0], [0]),
)


def pairs_of(case: PairedCase, iou_threshold: float = 0.5) -> list[tuple[int, int]]:
    """Pairs (prediction, reference) by falling score."""
    verdict = match_detections([case], NAMES, ranges=BALL_DIAMETERS_MM, thresholds=[iou_threshold])
    return [(int(i), int(j)) for i, j in zip(verdict.predicted, verdict.match[:, 0], strict=True) if j >= 0]


def test_matching_by_hand() -> None:
    """The confident prediction takes the reference although the other fits better; the class keeps them apart."""
    iou = [[0.6, 0.0, 0.0], [0.9, 0.55, 0.0], [0.0, 0.0, 0.8]]
    assert pairs_of(paired(iou, [0.9, 0.8, 0.7], [0, 0, 1], [0, 0, 2])) == [(0, 0), (1, 1)]
    assert pairs_of(paired(iou, [0.9, 0.8, 0.7], [0, 0, 1], [0, 0, 1])) == [(0, 0), (1, 1), (2, 2)]
    assert pairs_of(paired(iou, [0.9, 0.8, 0.7], [0, 0, 1], [0, 0, 1]), 0.7) == [(1, 0), (2, 2)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.1, 0.5, 0.9]))
def test_matching_equals_a_plain_loop(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(0, 7, 2)
    iou, scores = rng.random((n, m)), np.sort(rng.integers(0, 4, n) / 4)[::-1]
    mine, theirs = rng.integers(0, 2, n).tolist(), rng.integers(0, 2, m).tolist()
    expected, taken = [], set()
    for i in range(n):
        open_ = [j for j in range(m) if j not in taken and mine[i] == theirs[j] and iou[i, j] >= threshold]
        if open_:
            best = max(open_, key=lambda j: iou[i, j])
            taken.add(best)
            expected.append((i, best))
    assert pairs_of(paired(iou.tolist(), scores.tolist(), mine, theirs), threshold) == expected


def test_counts_by_hand() -> None:
    verdict = matched(*TWO_SCANS)
    got = count(verdict, score=0.65, threshold_index=verdict.threshold_index(0.5))
    assert got.hits[:, 0].tolist() == [1, 1]
    assert got.false_positives[:, 0].tolist() == [1, 0]
    assert got.missed[:, 0].tolist() == [1, 0]
    table = detection_table(got, once(verdict))
    assert table["recall"][0, 0] == pytest.approx(2 / 3)
    assert table["precision"][0, 0] == pytest.approx(2 / 3)
    assert table["false_positives_per_case"][0, 0] == 0.5
    assert np.isnan(table["recall"][1:]).all() and np.isnan(table["precision"][1:]).all()


def test_panoptic_quality_by_hand() -> None:
    """SQ = (0.8 + 0.55) / 2; RQ = 2 / (2 + 1 / 2 + 1 / 2)."""
    verdict = matched(*TWO_SCANS)
    table = panoptic_table(verdict, once(verdict), score=0.65)
    assert table["sq"][0, 0] == pytest.approx(0.675)
    assert table["rq"][0, 0] == pytest.approx(2 / 3)
    assert table["pq"][0, 0] == pytest.approx(0.675 * 2 / 3)
    nothing = panoptic_table(verdict, once(verdict), score=0.95)
    assert nothing["pq"][0, 0] == 0 and np.isnan(nothing["sq"][0, 0])


def test_panoptic_quality_asks_for_more_than_one_half() -> None:
    verdict = matched(paired([[0.5]], [0.9], [0], [0]))
    assert panoptic_table(verdict, once(verdict), score=0)["pq"][0, 0] == 0
    assert detection_table(count(verdict, score=0, threshold_index=1), once(verdict))["recall"][0, 0] == 1


def test_data_science_bowl_by_hand() -> None:
    """At 0.5: 1 / 3 in the first scan (one hit, one error, one missed), 1 in the second. At 0.75: 1 / 3 and 0 / 2."""
    verdict = matched(*TWO_SCANS)
    table = data_science_bowl_table(verdict, once(verdict), score=0.65)
    assert table["dsb50"][0, 0] == pytest.approx((1 / 3 + 1) / 2)
    assert table["dsb75"][0, 0] == pytest.approx((1 / 3 + 0) / 2)
    assert table["dsb90"][0, 0] == 0
    assert table["dsb50_pooled"][0, 0] == pytest.approx(2 / 4)
    assert table["dsb75_pooled"][0, 0] == pytest.approx(1 / 5)
    # IoU 0.8 holds for seven of the ten thresholds, 0.55 for two
    assert table["dsb"][0, 0] == pytest.approx((7 * (1 / 3) + 2 * 1) / 20)
    assert np.isnan(table["dsb50"][2, 0])


def test_ignored_references_and_crowds_are_neither_hits_nor_errors() -> None:
    case = paired([[0.9, 0, 0], [0, 0.9, 0], [0, 0.8, 0], [0, 0, 0.6]], [0.9, 0.8, 0.7, 0.6], [0] * 4, [0] * 3)
    verdict = matched(paired(case.iou.tolist(), [0.9, 0.8, 0.7, 0.6], [0] * 4, [0] * 3, crowd=[1], ignored=[2]))
    got = count(verdict, score=0, threshold_index=verdict.threshold_index(0.5))
    assert (got.hits[0, 0], got.false_positives[0, 0], got.missed[0, 0]) == (1, 0, 0)
    got = count(matched(case), score=0, threshold_index=verdict.threshold_index(0.5))
    assert (got.hits[0, 0], got.false_positives[0, 0], got.missed[0, 0]) == (3, 1, 0)


def test_froc_by_hand() -> None:
    """Livers by score: hit 0.9, error 0.8, hit 0.7, error 0.6, of three objects in two scans."""
    verdict = matched(*TWO_SCANS)
    at = verdict.threshold_index(0.5)
    got = froc(verdict, once(verdict), threshold_index=at, points=[0, 0.25, 0.5, 1, 8])
    # the curve goes (0, 0), (0, 1/3), (0.5, 1/3), (0.5, 2/3), (1, 2/3)
    np.testing.assert_allclose(got[0, :, 0], [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert np.isnan(got[1:]).all()


def test_scores_that_are_equal_are_one_point_of_the_curve() -> None:
    case = paired([[0.9, 0], [0, 0], [0, 0.9]], [0.5, 0.5, 0.5], [0] * 3, [0, 0])
    got = froc(matched(case), np.ones((1, 1)), threshold_index=1, points=[0.5, 1])
    np.testing.assert_allclose(got[0, :, 0], [0.5, 1])  # half way along the line from (0, 0) to (1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_froc_equals_monai(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases, hits, errors, n_references = [], [], [], 0
    for _ in range(12):
        n, m = int(rng.integers(0, 9)), int(rng.integers(0, 4))
        iou = np.zeros((n, m))
        scores = np.sort(rng.random(n))[::-1]
        chosen = rng.permutation(n)[: min(n, m)]
        iou[chosen, np.arange(len(chosen))] = 0.8
        cases.append(paired(iou.tolist(), scores.tolist(), [0] * n, [0] * m))
        hits += scores[chosen].tolist()
        errors += np.delete(scores, chosen).tolist()
        n_references += m
    # MONAI leaves out its lowest score: one that changes nothing but the end of the curve stands there
    curve = compute_froc_curve_data(np.array([*errors, -1.0]), np.array(hits), n_references, len(cases))
    verdict = matched(*cases)
    got = froc(verdict, once(verdict), threshold_index=verdict.threshold_index(0.5)).mean(axis=1)
    assert got[0, 0] == pytest.approx(compute_froc_score(*curve, eval_thresholds=LUNA16_POINTS), abs=1e-12)


def test_no_case_and_thresholds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="no case"):
        match_detections([], NAMES, ranges=BALL_DIAMETERS_MM)
    with pytest.raises(ValueError, match="IoU thresholds"):
        match_detections(TWO_SCANS, NAMES, ranges=BALL_DIAMETERS_MM, thresholds=(0.5, 1.2))
    with pytest.raises(ValueError, match=r"not at 0\.33"):
        matched(*TWO_SCANS).threshold_index(0.33)


def test_a_data_set_without_predictions_or_references() -> None:
    verdict = matched(paired([], [], [], [0]), paired([], [], [], []))
    assert detection_table(count(verdict, score=0, threshold_index=1), once(verdict))["recall"][0, 0] == 0
    assert np.isnan(data_science_bowl_table(verdict, once(verdict), score=0)["dsb50"][1, 0])
    assert froc(verdict, once(verdict), threshold_index=0)[0].max() == 0
    assert verdict.thresholds == THRESHOLDS


def test_patients_come_and_go_with_all_their_scans() -> None:
    weights = patient_weights(["a", "b", "a", "c"], replicates=200, seed=1)
    assert weights.shape == (201, 4) and (weights[0] == 1).all()
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert (weights[1:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[1:].std() > 0.5
    assert np.array_equal(weights, patient_weights(["a", "b", "a", "c"], replicates=200, seed=1))
    assert patient_weights(["a", "a"], replicates=200).shape == (1, 2)


def test_a_weight_of_two_is_the_case_twice() -> None:
    verdict = matched(*TWO_SCANS)
    twice = matched(TWO_SCANS[0], TWO_SCANS[1], TWO_SCANS[1])
    weights = np.array([[1.0, 2.0]])
    for table in (data_science_bowl_table, panoptic_table):
        weighted, repeated = table(verdict, weights, score=0.65), table(twice, once(twice), score=0.65)
        for name, values in weighted.items():
            np.testing.assert_allclose(values, repeated[name], err_msg=name)
    np.testing.assert_allclose(froc(verdict, weights, threshold_index=1), froc(twice, once(twice), threshold_index=1))


def test_estimates() -> None:
    got = estimate(np.array([0.5, *np.linspace(0, 1, 101)]), level=0.9)
    assert (got.value, got.low, got.high) == (0.5, pytest.approx(0.05), pytest.approx(0.95))
    assert estimate(np.array([np.nan, 0.3])).value is None
    alone = estimate(np.array([0.4, np.nan, np.nan, 0.2]))
    assert (alone.value, alone.low, alone.high) == (0.4, None, None)
    np.testing.assert_array_equal(
        mean_of_defined(np.array([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]])), [2.0, 2.0, np.nan]
    )

"""Metrics at one score threshold: hits, false positives and missed objects, and the ratios derived from them.

With TP, FP and FN at an IoU threshold: recall = TP / (TP + FN), precision = TP / (TP + FP), and the AP of the Data
Science Bowl 2018 (https://www.kaggle.com/c/data-science-bowl-2018/overview/evaluation) = TP / (TP + FP + FN), there
computed per image over IoU 0.5, 0.55, .. 0.95 and averaged.

Panoptic quality (Kirillov et al. 2019, eq. 1), with TP at IoU > 0.5:
PQ = SQ x RQ, SQ = mean IoU of the TP, RQ = TP / (TP + FP / 2 + FN / 2).

All are computed for R weightings of the C cases at once; see :mod:`medmaskrcnn.evaluation.metrics.average_precision`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from medmaskrcnn.evaluation.metrics.match_detections import MatchResult
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray


@dataclass(frozen=True, eq=False)
class Counts:
    """Hits and errors of each case and class, each ``(C, K)`` float64.

    Attributes:
        hits, false_positives, missed: Numbers of objects.
        iou: Sum of the hits' IoUs.
        annotated: 1 where the class was annotated in the case, else 0: then there is nothing to count.
    """

    hits: FloatArray
    false_positives: FloatArray
    missed: FloatArray
    iou: FloatArray
    annotated: FloatArray


def count(matched: MatchResult, *, score: float, threshold_index: int, above: float = 0.0) -> Counts:
    """Count hits, false positives and missed objects at a score threshold.

    Args:
        matched: See :func:`medmaskrcnn.evaluation.metrics.match_detections.match_detections`.
        score: Score threshold of the result (inclusive; compared in float32, as in results).
        threshold_index: Index of the matched IoU threshold that makes a hit.
        above: A hit's IoU must also exceed this.
    """
    kept = matched.score.astype(np.float32) >= np.float32(score)
    iou = matched.iou[:, threshold_index]
    hit = matched.hit[:, 0, threshold_index] & kept & (iou > above)
    error = kept & ~hit & ~matched.ignored[:, 0, threshold_index]
    shape = matched.n_references.shape[:2]
    place = matched.case * shape[1] + matched.label

    def table(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(place, values, minlength=shape[0] * shape[1]).reshape(shape), np.float64)

    hits = table(hit.astype(np.float64))
    return Counts(
        hits=hits,
        false_positives=table(error.astype(np.float64)),
        missed=matched.n_references[:, :, 0] - hits,
        iou=table(iou * hit),
        annotated=matched.annotated.astype(np.float64),
    )


def ratio(numerator: FloatArray, denominator: FloatArray, weights: FloatArray) -> FloatArray:
    """``(K, R)`` ratio of the weighted sums of two ``(C, K)`` tables, NaN where the denominator is 0."""
    above, below = (weights @ numerator).T, (weights @ denominator).T
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def detection_table(counts: Counts, weights: FloatArray) -> dict[str, FloatArray]:
    """``recall``, ``precision`` and ``false_positives_per_case`` (of those annotated), each ``(K, R)``."""
    return {
        "recall": ratio(counts.hits, counts.hits + counts.missed, weights),
        "precision": ratio(counts.hits, counts.hits + counts.false_positives, weights),
        "false_positives_per_case": ratio(counts.false_positives, counts.annotated, weights),
    }


def empty_case_table(counts: Counts, weights: FloatArray) -> dict[str, FloatArray]:
    """False findings on cases without an object of a class, each ``(K, R)``.

    ``false_positives_per_empty_case``: their number; ``specificity``: share of these cases without any.
    """
    empty = empty_cases(counts).astype(np.float64)
    return {
        "false_positives_per_empty_case": ratio(empty * counts.false_positives, empty, weights),
        "specificity": ratio(empty * (counts.false_positives == 0), empty, weights),
    }


def empty_cases(counts: Counts) -> BoolArray:
    """``(C, K)`` whether a case is known to have no object of a class that would have to be found."""
    return np.asarray((counts.hits + counts.missed == 0) & (counts.annotated > 0))


def over_all_classes(counts: Counts) -> Counts:
    """The sums over the classes, each ``(C, 1)``: an empty case is then one without an object of any class.

    Annotated are the cases in which all classes were.
    """
    sums = Counts(*(getattr(counts, one.name).sum(axis=1, keepdims=True) for one in fields(counts)))
    return replace(sums, annotated=counts.annotated.min(axis=1, keepdims=True))


def panoptic_table(matched: MatchResult, weights: FloatArray, *, score: float) -> dict[str, FloatArray]:
    """``pq``, ``sq`` and ``rq``, each ``(K, R)``; PQ is 0 if nothing was hit, and SQ is then undefined."""
    counts = count(matched, score=score, threshold_index=matched.threshold_index(0.5), above=0.5)
    whole = counts.hits + 0.5 * (counts.false_positives + counts.missed)
    return {
        "pq": ratio(counts.iou, whole, weights),
        "sq": ratio(counts.iou, counts.hits, weights),
        "rq": ratio(counts.hits, whole, weights),
    }


def data_science_bowl_table(matched: MatchResult, weights: FloatArray, *, score: float) -> dict[str, FloatArray]:
    """TP / (TP + FP + FN), each ``(K, R)``; a case with neither objects nor predictions of a class has none.

    ``dsb50``, ``dsb75``, ``dsb90``: mean over cases at one IoU; ``dsb``: mean over cases and COCO's ten IoUs.
    ``dsb50_pooled`` and so on: over the objects of all cases together, as StarDist reports it.
    """
    per_case, pooled = [], []
    for t in matched.coco_indices:
        counts = count(matched, score=score, threshold_index=t)
        whole = counts.hits + counts.false_positives + counts.missed
        share = np.divide(counts.hits, whole, out=np.zeros(whole.shape), where=whole > 0)
        per_case.append(ratio(share, (whole > 0).astype(np.float64), weights))
        pooled.append(ratio(counts.hits, whole, weights))
    at = {"dsb50": 0, "dsb75": 5, "dsb90": 8}
    table = {name: per_case[k] for name, k in at.items()}
    table["dsb"] = np.mean(per_case, axis=0)
    return table | {f"{name}_pooled": pooled[k] for name, k in at.items()}

"""COCO's average precision and average recall, of boxes or masks, in 2D and 3D.

The predictions of a class in all cases are sorted by falling score. After each: recall = hits / references, precision =
hits / (hits + errors), made monotonically non-increasing. AP is the mean precision at recalls 0, 0.01, .. 1; AR is the
final recall. Equal to pycocotools (Lin et al. 2014, https://cocodataset.org/#detection-eval) within rounding.

Every figure is computed for many weightings of the cases at once, as needed for a bootstrap: a case drawn twice counts
twice. Letters: K classes, T thresholds, C cases, R weightings (the first is all ones, by convention).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmaskrcnn.evaluation.metrics.match_detections import COCO_THRESHOLDS, LOW_THRESHOLD, MatchResult
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray

MAX_DETECTIONS = (1, 10, 100)
"""COCO's limits on detections per case and class."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_AT_ONCE = 100_000  # elements of one array: few enough for the processor's cache


def coco_table(
    matched: MatchResult, weights: FloatArray, *, max_detections: Sequence[int | None] = MAX_DETECTIONS
) -> dict[str, FloatArray]:
    """COCO's figures over all sizes by name, each ``(K, R)``, NaN where undefined.

    ``ap`` (mean over IoU 0.5, 0.55, .. 0.95), ``ap50``, ``ap75``, and, if matched at IoU 0.1 too, ``ap10``, at the last
    of ``max_detections``; ``ar_1``, ``ar_10``, ``ar_100`` (``ar_all`` if there is no limit).
    """
    most, indices = max_detections[-1], matched.coco_indices
    low = [matched.threshold_index(LOW_THRESHOLD)] if LOW_THRESHOLD in matched.thresholds else []
    values = average_precision(matched, weights, threshold_indices=indices + low, max_detections=most)
    table = {"ap": values[:, :10].mean(axis=1), "ap50": values[:, 0], "ap75": values[:, COCO_THRESHOLDS.index(0.75)]}
    if low:
        table["ap10"] = values[:, 10]
    for limit in max_detections:
        table[f"ar_{limit or 'all'}"] = average_recall(matched, weights, max_detections=limit)
    return table


def size_table(matched: MatchResult, weights: FloatArray, *, max_detections: int | None = 100) -> dict[str, FloatArray]:
    """COCO's figures by size, ``ap_small``, ``ar_small`` and so on, each ``(K, R)``, NaN where undefined."""
    table = {}
    for a, name in enumerate(matched.ranges.names[1:], start=1):
        values = average_precision(
            matched, weights, threshold_indices=matched.coco_indices, size_range=a, max_detections=max_detections
        )
        table[f"ap_{name}"] = values.mean(axis=1)
        table[f"ar_{name}"] = average_recall(matched, weights, size_range=a, max_detections=max_detections)
    return table


def average_precision(
    matched: MatchResult,
    weights: FloatArray,
    *,
    threshold_indices: Sequence[int],
    size_range: int = 0,
    max_detections: int | None = None,
) -> FloatArray:
    """``(K, T, R)`` AP of each class at each threshold, NaN where a class has no reference.

    Args:
        matched: See :func:`medmaskrcnn.evaluation.metrics.match_detections.match_detections`.
        weights: ``(R, C)`` how often each case counts.
        threshold_indices: Indices of T of the matched thresholds.
        size_range: Index of the size range.
        max_detections: Limit on predictions per class and case, highest scores first; ``None`` for all.
    """
    result = np.full((len(matched.class_names), len(threshold_indices), len(weights)), np.nan)
    n_references = weights @ matched.n_references[:, :, size_range]
    for k in range(len(matched.class_names)):
        chosen = _chosen(matched, k, max_detections)
        hit = matched.hit[chosen, size_range][:, threshold_indices].T
        error = ~hit & ~matched.ignored[chosen, size_range][:, threshold_indices].T
        step = max(1, _AT_ONCE // max(1, hit.shape[1]))
        for first in range(0, len(weights), step):
            rows = np.arange(first, min(first + step, len(weights)))
            rows = rows[n_references[rows, k] > 0]
            if not len(rows):
                continue
            case_weights = weights[rows][:, matched.case[chosen]]
            for t in range(len(threshold_indices)):
                result[k, t, rows] = _area(hit[t], error[t], case_weights, n_references[rows, k])
    return result


def average_recall(
    matched: MatchResult, weights: FloatArray, *, size_range: int = 0, max_detections: int | None = None
) -> FloatArray:
    """``(K, R)`` recall with ``max_detections`` per case, mean over COCO's thresholds; NaN without a reference."""
    result = np.full((len(matched.class_names), len(weights)), np.nan)
    n_references = weights @ matched.n_references[:, :, size_range]
    for k in range(len(matched.class_names)):
        chosen = _chosen(matched, k, max_detections)
        hits = matched.hit[chosen, size_range][:, matched.coco_indices].mean(axis=1)
        per_case = np.bincount(matched.case[chosen], hits, minlength=len(matched.patients))
        np.divide(weights @ per_case, n_references[:, k], out=result[k], where=n_references[:, k] > 0)
    return result


def _chosen(matched: MatchResult, k: int, max_detections: int | None) -> BoolArray:
    chosen = matched.label == k
    return chosen if max_detections is None else chosen & (matched.rank < max_detections)


def _area(hit: BoolArray, error: BoolArray, weights: FloatArray, n_references: FloatArray) -> FloatArray:
    """``(R,)`` area under the precision-recall curve of N predictions: ``(N,)`` hits and errors, ``(R, N)`` weights."""
    counted = hit | error
    if not counted.any():
        return np.zeros(len(weights))
    weights, hit, error = weights[:, counted], hit[counted], error[counted]
    hits, errors = np.cumsum(weights * hit, axis=1), np.cumsum(weights * error, axis=1)
    precision = np.zeros((len(hits), hits.shape[1] + 1))  # last column: 0 at recalls that are never reached
    np.divide(hits, hits + errors + np.spacing(1), out=precision[:, :-1])
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / n_references[:, None]
    places = np.stack([np.searchsorted(row, _RECALLS, side="left") for row in recall])
    return np.asarray(np.take_along_axis(precision, places, axis=1).mean(axis=1))

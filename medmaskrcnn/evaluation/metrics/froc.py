"""FROC: sensitivity (share of objects found) against false positives per scan, over all score thresholds.

CPM, the competition performance metric, is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per
scan; the curve is interpolated linearly between scores, starting at (0, 0), as in LUNA16 (Setio et al. 2017). Unlike
there, a hit is defined by IoU, and a second prediction of an object already found is a false positive. Scans in which
a class was not annotated do not count for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmaskrcnn.evaluation.metrics.match_detections import MatchResult
from medmaskrcnn.structures.grid import FloatArray

LUNA16_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan."""


def froc(
    matched: MatchResult, weights: FloatArray, *, threshold_index: int, points: Sequence[float] = LUNA16_POINTS
) -> FloatArray:
    """``(K, P, R)`` share of the objects of each class found at P false positives per scan, NaN without an object.

    Args:
        matched: See :func:`medmaskrcnn.evaluation.metrics.match_detections.match_detections`.
        weights: ``(R, C)`` how often each case counts.
        threshold_index: Index of the matched IoU threshold that makes a hit.
        points: False positives per scan.
    """
    n_references = weights @ matched.n_references[:, :, 0]
    n_scans = weights @ matched.annotated
    result = np.full((len(matched.class_names), len(points), len(weights)), np.nan)
    for k in range(len(matched.class_names)):
        chosen = np.flatnonzero(matched.label == k)
        hit = matched.hit[chosen, 0, threshold_index]
        error = ~hit & ~matched.ignored[chosen, 0, threshold_index]
        last = np.flatnonzero(np.diff(matched.score[chosen], append=-1))  # last of each score: ties stay together
        for r in np.flatnonzero(n_references[:, k] > 0):
            weight = weights[r, matched.case[chosen]]
            found = np.cumsum(weight * hit)[last] / n_references[r, k]
            false = np.cumsum(weight * error)[last] / n_scans[r, k]
            result[k, :, r] = np.interp(points, np.append(0.0, false), np.append(0.0, found))
    return result

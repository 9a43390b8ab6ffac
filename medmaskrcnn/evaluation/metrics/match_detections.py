"""Match the predictions of all cases as hits and errors, for every IoU threshold and size range: the basis of metrics.

A prediction's match does not depend on predictions with lower scores, so matching all candidates once serves every
score threshold and every limit on the number of detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.evaluation.metrics.assignment import BELOW_ONE, IntArray, assign, ranks
from medmaskrcnn.evaluation.metrics.pairing import PairedCase
from medmaskrcnn.evaluation.metrics.sizes import SizeRanges
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.mask import BoolArray

COCO_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
LOW_THRESHOLD = 0.1
"""IoU at which an object counts as detected, even if not well outlined: nnDetection's (Baumgartner et al. 2021)."""

THRESHOLDS = (LOW_THRESHOLD, *COCO_THRESHOLDS)


@dataclass(frozen=True, eq=False)
class MatchResult:
    """N predictions of C cases by falling score (ties: earlier case first), with K classes, A ranges, T IoUs.

    Attributes:
        class_names: K names.
        patients: Patient of each of the C cases.
        thresholds: T IoUs.
        ranges: A size ranges; the first holds every object.
        case, label: ``(N,)`` index of case and class.
        score: ``(N,)``.
        rank: ``(N,)`` rank by score among the predictions of its case and class, from 0.
        predicted: ``(N,)`` index among the case's candidates.
        match: ``(N, T)`` index among the case's paired references, -1 for none; of the first range.
        iou: ``(N, T)`` with the match, 0 for none.
        hit: ``(N, A, T)`` whether it found an object that counts.
        ignored: ``(N, A, T)`` neither hit nor error.
        n_references: ``(C, K, A)`` number of objects that count.
        annotated: ``(C, K)`` whether a class was annotated in a case.
    """

    class_names: tuple[str, ...]
    patients: tuple[str, ...]
    thresholds: tuple[float, ...]
    ranges: SizeRanges
    case: IntArray
    label: IntArray
    score: FloatArray
    rank: IntArray
    predicted: IntArray
    match: IntArray
    iou: FloatArray
    hit: BoolArray
    ignored: BoolArray
    n_references: IntArray
    annotated: BoolArray

    def threshold_index(self, iou: float) -> int:
        """Index of an IoU in :attr:`thresholds`.

        Raises:
            ValueError: if it is not one of them.
        """
        near = [k for k, threshold in enumerate(self.thresholds) if abs(threshold - iou) < 1e-9]
        if not near:
            raise ValueError(f"matched at IoUs {self.thresholds}, not at {iou}")
        return near[0]

    @property
    def coco_indices(self) -> list[int]:
        """Indices of COCO's ten thresholds."""
        return [self.threshold_index(t) for t in COCO_THRESHOLDS]


def match_detections(
    cases: Sequence[PairedCase],
    class_names: Sequence[str],
    *,
    ranges: SizeRanges,
    thresholds: Sequence[float] = THRESHOLDS,
) -> MatchResult:
    """Match the predictions of every case with its references.

    Args:
        cases: Paired by the same ``class_names``.
        class_names: K names.
        ranges: Size ranges.
        thresholds: IoUs in (0, 1].

    Raises:
        ValueError: if there is no case, or a threshold lies outside (0, 1].
    """
    if not cases:
        raise ValueError("there is no case to judge")
    if not thresholds or min(thresholds) <= 0 or max(thresholds) > 1:
        raise ValueError(f"IoU thresholds must lie in (0, 1], got {list(thresholds)}")
    first_prediction = np.cumsum([0, *(len(c.labels) for c in cases)])
    first_reference = np.cumsum([0, *(len(c.true_labels) for c in cases)])
    case = np.repeat(np.arange(len(cases)), np.diff(first_prediction))
    label, score, predicted, crowd = (
        np.concatenate([getattr(c, name) for c in cases]) for name in ("labels", "scores", "predicted", "crowd")
    )
    outside = ranges.outside(np.concatenate([ranges.measured(c.n_voxels, c.grid) for c in cases]))
    set_aside = ranges.outside(np.concatenate([ranges.measured(c.true_voxels, c.grid) for c in cases]))
    set_aside |= np.concatenate([c.ignored for c in cases])[:, None]

    candidates, partner, iou = _pairs(cases, first_prediction, first_reference, min(thresholds))
    groups = case * len(class_names) + label
    pair = assign(
        candidates,
        partner,
        iou,
        groups,
        thresholds=np.asarray(thresholds, np.float64),
        set_aside=set_aside,
        crowd=crowd,
    )
    # an extra last entry for unmatched predictions: pair -1 indexes it
    partner, iou = np.append(partner, len(set_aside)), np.append(iou, 0.0)
    aside = np.append(set_aside, np.zeros((1, set_aside.shape[1]), np.bool_), axis=0)
    hit_aside = aside[partner[pair], np.arange(aside.shape[1])[:, None]]
    whole = pair[:, 0]
    match = np.where(whole >= 0, partner[whole] - first_reference[case][:, None], -1)
    order = np.argsort(-score, kind="stable")
    return MatchResult(
        class_names=tuple(class_names),
        patients=tuple(c.patient for c in cases),
        thresholds=tuple(float(t) for t in thresholds),
        ranges=ranges,
        case=case[order],
        label=label[order],
        score=score[order],
        rank=ranks(groups)[order],
        predicted=predicted[order],
        match=match[order],
        iou=iou[whole][order],
        hit=((pair >= 0) & ~hit_aside)[order],
        ignored=(hit_aside | ((pair < 0) & outside[:, :, None]))[order],
        n_references=_n_references(cases, len(class_names), set_aside),
        annotated=np.array([np.ones(len(class_names), bool) if c.annotated is None else c.annotated for c in cases]),
    )


def _pairs(
    cases: Sequence[PairedCase], first_prediction: IntArray, first_reference: IntArray, lowest: float
) -> tuple[IntArray, IntArray, FloatArray]:
    """Prediction, reference and IoU of pairs of one class that reach the lowest threshold; numbered across cases."""
    found = [np.nonzero((c.iou >= min(lowest, BELOW_ONE)) & (c.labels[:, None] == c.true_labels)) for c in cases]
    predicted = np.concatenate([i + n for (i, _), n in zip(found, first_prediction[:-1], strict=True)])
    reference = np.concatenate([j + n for (_, j), n in zip(found, first_reference[:-1], strict=True)])
    return predicted, reference, np.concatenate([c.iou[pair] for c, pair in zip(cases, found, strict=True)])


def _n_references(cases: Sequence[PairedCase], n_classes: int, set_aside: BoolArray) -> IntArray:
    counts = np.zeros((len(cases), n_classes, set_aside.shape[1]), np.int64)
    case = np.repeat(np.arange(len(cases)), [len(c.true_labels) for c in cases])
    np.add.at(counts, (case, np.concatenate([c.true_labels for c in cases])), ~set_aside)
    return counts

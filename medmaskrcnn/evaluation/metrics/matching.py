"""Match the predictions of one scan with its references.

Matching is COCO's (:mod:`medmaskrcnn.evaluation.metrics.assignment`). Unmatched predictions are false positives,
unmatched references are missed objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.evaluation.metrics.match_detections import match_detections
from medmaskrcnn.evaluation.metrics.pairing import pair_case
from medmaskrcnn.evaluation.metrics.sizes import BALL_DIAMETERS_MM
from medmaskrcnn.structures.instances import Instances


@dataclass(frozen=True)
class Match:
    """A prediction and the reference object it found.

    Attributes:
        predicted, reference: Indices into the two :class:`Instances`.
        class_name: Their class.
        iou, dice: Agreement of the masks.
        volume_error: (predicted - reference) / reference volume; -0.1 means 10 % too small.
    """

    predicted: int
    reference: int
    class_name: str
    iou: float
    dice: float
    volume_error: float


@dataclass(frozen=True)
class CaseSummary:
    """One scan's prediction against its reference.

    Attributes:
        iou_threshold: IoU from which an object counts as found.
        matches: Objects found, in the order of the references.
        missed: Indices of references that no prediction found.
        false_positives: Indices of predictions that match no reference.
    """

    iou_threshold: float
    matches: tuple[Match, ...]
    missed: tuple[int, ...]
    false_positives: tuple[int, ...]

    @property
    def n_reference(self) -> int:
        """Number of reference objects."""
        return len(self.matches) + len(self.missed)

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice of the objects found; ``None`` if none was."""
        return float(np.mean([m.dice for m in self.matches])) if self.matches else None


def match_case(predicted: Instances, reference: Instances, *, iou_threshold: float = 0.5) -> CaseSummary:
    """Match one scan's prediction with its reference, by class *name* and mask IoU.

    Args:
        predicted: The result's instances (those at or above the score threshold).
        reference: The reference, e.g. from :func:`medmaskrcnn.structures.label_maps.instances_of_label_map`.
        iou_threshold: In (0, 1].

    Raises:
        ValueError: if the two are on different grids or the threshold is out of range.
    """
    names = tuple(dict.fromkeys((*predicted.class_names, *reference.class_names)))
    paired = pair_case(predicted, reference, class_names=names)
    matched = match_detections([paired], names, ranges=BALL_DIAMETERS_MM, thresholds=(iou_threshold,))
    matches = [
        _match(predicted, int(matched.predicted[n]), reference, int(matched.match[n, 0]), float(matched.iou[n, 0]))
        for n in np.flatnonzero(matched.match[:, 0] >= 0)
    ]
    found, used = {m.reference for m in matches}, {m.predicted for m in matches}
    return CaseSummary(
        iou_threshold=iou_threshold,
        matches=tuple(sorted(matches, key=lambda match: match.reference)),
        missed=tuple(j for j in range(len(reference)) if j not in found),
        false_positives=tuple(i for i in range(len(predicted)) if i not in used),
    )


def _match(predicted: Instances, i: int, reference: Instances, j: int, iou: float) -> Match:
    mask, true = predicted.masks[i], reference.masks[j]
    return Match(
        predicted=i,
        reference=j,
        class_name=reference.class_names[reference.labels[j]],
        iou=iou,
        dice=2 * mask.overlap(true) / (mask.n_voxels + true.n_voxels),
        volume_error=(mask.n_voxels - true.n_voxels) / true.n_voxels,
    )

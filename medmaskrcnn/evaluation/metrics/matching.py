"""Which prediction is which reference, and what one scan's prediction is worth.

Matching is COCO's: class by class, predictions take their turn by falling score, and each takes the reference
of its class with the highest IoU that is still free, if that IoU reaches the threshold. What is left over on
one side are false positives, on the other missed objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.evaluation.metrics.assignment import assign
from medmaskrcnn.evaluation.metrics.overlap import over_union
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts


@dataclass(frozen=True)
class Match:
    """A prediction and the reference object it found.

    Attributes:
        predicted, reference: Indices into the two :class:`Instances`.
        class_name: Their class.
        iou, dice: Agreement of the masks.
        volume_error: (predicted - reference) / reference volume; -0.1 means ten per cent too small.
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
        false_positives: Indices of predictions that found none.
    """

    iou_threshold: float
    matches: tuple[Match, ...]
    missed: tuple[int, ...]
    false_positives: tuple[int, ...]

    @property
    def n_reference(self) -> int:
        """Objects there were to find."""
        return len(self.matches) + len(self.missed)

    @property
    def recall(self) -> float | None:
        """Share of the references found; ``None`` if there were none."""
        return len(self.matches) / self.n_reference if self.n_reference else None

    @property
    def precision(self) -> float | None:
        """Share of the predictions that found a reference; ``None`` if there were none."""
        n_predicted = len(self.matches) + len(self.false_positives)
        return len(self.matches) / n_predicted if n_predicted else None

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice of the objects found; ``None`` if none was."""
        return float(np.mean([m.dice for m in self.matches])) if self.matches else None

    @property
    def mean_dice_with_missed(self) -> float | None:
        """Mean Dice over all references, a missed one counting 0; ``None`` if there were none."""
        return sum(m.dice for m in self.matches) / self.n_reference if self.n_reference else None


def greedy_pairs(
    iou: FloatArray,
    scores: FloatArray,
    predicted_classes: Sequence[str],
    reference_classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> list[tuple[int, int]]:
    """COCO's matching; see the top of this file.

    Args:
        iou: ``(N, M)`` agreement of N predictions with M references.
        scores: ``(N,)``; ties go to the earlier prediction, and of equal IoUs the later reference is taken.
        predicted_classes: N class names.
        reference_classes: M class names.
        iou_threshold: In (0, 1].

    Returns:
        Pairs (prediction, reference), each index at most once, in the order they were matched.

    Raises:
        ValueError: if lengths disagree or the threshold lies outside (0, 1].
    """
    expected = (len(predicted_classes), len(reference_classes))
    if iou.shape != expected or scores.shape != expected[:1]:
        raise ValueError(f"iou must have shape {expected} and scores {expected[:1]}, got {iou.shape}, {scores.shape}")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], got {iou_threshold}")
    order = np.argsort(-scores, kind="stable")
    names = {name: k for k, name in enumerate(dict.fromkeys((*predicted_classes, *reference_classes)))}
    groups = np.array([names[predicted_classes[i]] for i in order], np.int64)
    same_class = groups[:, None] == np.array([names[name] for name in reference_classes], np.int64)[None, :]
    turn, j = np.nonzero(same_class & (iou[order] > 0))
    matched = assign(
        turn,
        j,
        iou[order][turn, j],
        groups,
        thresholds=np.array([iou_threshold], np.float64),
        set_aside=np.zeros((len(reference_classes), 1), np.bool_),
        crowd=np.zeros(len(reference_classes), np.bool_),
    )[:, 0, 0]
    return [(int(order[k]), int(j[pair])) for k, pair in enumerate(matched) if pair >= 0]


def match_case(predicted: Instances, reference: Instances, *, iou_threshold: float = 0.5) -> CaseSummary:
    """Match one scan's prediction with its reference, by class *name* and mask IoU.

    Args:
        predicted: The result's instances (those at or above the score threshold).
        reference: The truth, e.g. from :func:`medmaskrcnn.structures.label_maps.instances_of_label_map`.
        iou_threshold: In (0, 1].

    Raises:
        ValueError: if the two lie on different grids or the threshold is out of range.
    """
    shared = shared_voxel_counts(predicted, reference)
    size, true_size = voxel_counts(predicted), voxel_counts(reference)
    iou = over_union(shared, size, true_size)
    names = [reference.class_names[label] for label in reference.labels]
    pairs = greedy_pairs(
        iou,
        predicted.scores.astype(np.float64),
        [predicted.class_names[label] for label in predicted.labels],
        names,
        iou_threshold=iou_threshold,
    )
    matches = [
        Match(
            predicted=i,
            reference=j,
            class_name=names[j],
            iou=float(iou[i, j]),
            dice=float(2 * shared[i, j] / (size[i] + true_size[j])),
            volume_error=float((size[i] - true_size[j]) / true_size[j]),
        )
        for i, j in sorted(pairs, key=lambda pair: pair[1])
    ]
    found, used = {m.reference for m in matches}, {m.predicted for m in matches}
    return CaseSummary(
        iou_threshold=iou_threshold,
        matches=tuple(matches),
        missed=tuple(j for j in range(len(reference)) if j not in found),
        false_positives=tuple(i for i in range(len(predicted)) if i not in used),
    )

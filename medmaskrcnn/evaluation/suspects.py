"""Objects of a case whose label and prediction disagree so that the label may be wrong.

For each label and each prediction the kind of disagreement and a suspicion from 0 to 1, large where a sure prediction
contradicts the label (as in confident learning, Northcutt et al. 2021, for objects instead of images):

- *missing*: a sure prediction where no label is;
- *extra*: a label where nothing is predicted;
- *class*: a label with the outline of a sure prediction of another class;
- *outline*: a label that a sure prediction of its class overlaps little: shifted, or drawn carelessly;
- *merged*: a label that holds several sure predictions; *split*: a sure prediction that holds several labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.evaluation.evaluate import CasePair
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts

Kind = Literal["missing", "extra", "class", "outline", "merged", "split"]

_LEAST_SCORE = 0.1  # predictions below it contradict no label
_MEETS = 0.1  # IoU below which a prediction says nothing of a label
_SOUND = 0.75  # IoU from which an outline is beyond suspicion
_HELD = 0.7  # share of an object that lies in another which holds it
_LEAST_SUSPICION = 0.1
_USUAL = 10.0  # how much a kind of disagreement that the model often has counts against it
_LEAST_AGREEMENT = 1e-3  # bounds the loss


@dataclass(frozen=True, eq=False)
class Suspect:
    """A label that may be wrong, or a place where one may be missing.

    Attributes:
        case: Case id.
        kind: What may be wrong.
        class_name: Class of the label; of the prediction if a label may be missing.
        predicted: Class of the prediction, "" without one.
        score: Score of the prediction, 0 without one.
        iou: Overlap of label and prediction.
        loss: ``-log`` of the best product of score and IoU that a prediction of the label's class reaches.
        suspicion: 0 to 1.
        label, prediction: Their masks, in the scan's voxels; empty where there is none.
    """

    case: str
    kind: Kind
    class_name: str
    predicted: str
    score: float
    iou: float
    loss: float
    suspicion: float
    label: Mask
    prediction: Mask

    @property
    def centre_vox(self) -> tuple[int, int, int]:
        """Voxel D, H, W in the middle of its box."""
        mask = self.prediction if self.label.is_empty else self.label
        d, h, w = ((a + b) // 2 for a, b in zip(mask.start, mask.end, strict=True))
        return d, h, w


@dataclass(frozen=True, eq=False)
class _Case:
    """Labels and predictions of a case, compared: arrays are ``(labels, predictions)``."""

    id: str
    labels: Instances
    found: Instances
    iou: NDArray[np.float64]
    of_found: NDArray[np.float64]
    of_label: NDArray[np.float64]
    same: NDArray[np.bool_]

    def suspect(self, kind: Kind, i: int | None, j: int | None, suspicion: float) -> Suspect:
        """A suspect of label ``i`` and prediction ``j``."""
        label = Mask.empty() if i is None else self.labels.masks[i]
        name = self.labels.class_names[self.labels.labels[i]] if i is not None else ""
        predicted = "" if j is None else self.found.class_names[self.found.labels[j]]
        agreed = 0.0 if i is None else float((self.iou[i] * self.found.scores * self.same[i]).max(initial=0.0))
        return Suspect(
            self.id,
            kind,
            name or predicted,
            predicted,
            0.0 if j is None else float(self.found.scores[j]),
            0.0 if i is None or j is None else float(self.iou[i, j]),
            float(-np.log(max(agreed, _LEAST_AGREEMENT))),
            float(np.clip(suspicion, 0, 1)),
            label,
            Mask.empty() if j is None else self.found.masks[j],
        )


def suspects_of(pair: CasePair) -> list[Suspect]:
    """The suspects of a case, one for each label and each prediction at most, the most suspicious first.

    Regions to ignore, and classes that were not annotated in the case, are left out.
    """
    case = _compared(pair)
    raw: list[tuple[float, Kind, int | None, int | None]] = []
    for label in range(len(case.labels)):
        raw += _of_label(case, label)
    for prediction in range(len(case.found)):
        raw += _of_prediction(case, prediction)
    raw.sort(key=lambda one: -one[0])
    labels: set[int] = set()
    found: set[int] = set()
    kept = []
    for suspicion, kind, i, j in raw:
        if suspicion < _LEAST_SUSPICION or i in labels or j in found:
            continue
        if i is not None:
            labels.add(i)
            if kind == "merged":
                found.update(np.flatnonzero(case.of_found[i] >= _HELD).tolist())
        if j is not None:
            found.add(j)
            if kind == "split":
                labels.update(np.flatnonzero(case.of_label[:, j] >= _HELD).tolist())
        kept.append(case.suspect(kind, i, j, suspicion))
    return kept


def ranked(suspects: Sequence[Suspect], objects: int) -> list[Suspect]:
    """Suspects of all cases, the most suspicious first.

    A kind of disagreement that is frequent is more likely the model's weakness than the labels'.

    Args:
        suspects: Those of each case.
        objects: Number of labels.
    """
    sure = Counter(one.kind for one in suspects if one.suspicion >= 0.5)
    damped = [
        replace(one, suspicion=one.suspicion / (1 + _USUAL * sure[one.kind] / max(objects, 1))) for one in suspects
    ]
    return sorted(damped, key=lambda one: (-one.suspicion, one.case, one.centre_vox))


def _compared(pair: CasePair) -> _Case:
    reference, predicted = pair.reference, pair.predicted
    crowd = np.zeros(len(reference), bool) if pair.crowd is None else pair.crowd
    asked = predicted.scores >= _LEAST_SCORE
    if pair.annotated is not None:
        known = [predicted.class_names.index(name) for name in pair.annotated if name in predicted.class_names]
        asked &= np.isin(predicted.labels, known)
    found = predicted.select(np.flatnonzero(asked))
    if crowd.any():
        ignored = shared_voxel_counts(reference.select(np.flatnonzero(crowd)), found).max(axis=0)
        found = found.select(np.flatnonzero(ignored < 0.5 * np.maximum(voxel_counts(found), 1)))
    labels = reference.select(np.flatnonzero(~crowd))
    shared = shared_voxel_counts(labels, found).astype(float)
    own, others = voxel_counts(labels)[:, None], voxel_counts(found)[None]
    return _Case(
        pair.id,
        labels,
        found,
        shared / np.maximum(own + others - shared, 1),
        shared / np.maximum(others, 1),
        shared / np.maximum(own, 1),
        labels.labels[:, None] == found.labels,
    )


def _of_label(case: _Case, i: int) -> list[tuple[float, Kind, int | None, int | None]]:
    """What may be wrong with a label."""
    iou, scores, same = case.iou[i], case.found.scores.astype(float), case.same[i]
    support = float((scores * np.minimum(1, case.of_label[i] / _HELD)).max(initial=0.0))
    found: list[tuple[float, Kind, int | None, int | None]] = [(1 - support, "extra", i, None)]
    own = float((scores * iou * same).max(initial=0.0))
    other = np.flatnonzero(~same & (iou >= 0.5))
    if len(other):
        j = int(other[np.argmax((scores * iou)[other])])
        found.append((float(scores[j] * iou[j]) - own, "class", i, j))
    meeting = np.flatnonzero(same & (iou >= _MEETS))
    if len(meeting):
        j = int(meeting[np.argmax((scores * iou)[meeting])])
        found.append((float(scores[j]) * (_SOUND - float(iou[j])) / _SOUND, "outline", i, j))
    held = np.flatnonzero(same & (case.of_found[i] >= _HELD) & (iou < _SOUND))
    if len(held) > 1:
        cover = min(1.0, float(case.of_label[i, held].sum()))
        first, second = np.sort(scores[held])[::-1][:2]
        found.append((float(np.sqrt(first * second)) * cover, "merged", i, int(held[np.argmax(scores[held])])))
    return found


def _of_prediction(case: _Case, j: int) -> list[tuple[float, Kind, int | None, int | None]]:
    """What labels may lack where something is predicted."""
    score, iou = float(case.found.scores[j]), case.iou[:, j]
    covered = min(1.0, float(case.of_found[:, j].sum()))
    found: list[tuple[float, Kind, int | None, int | None]] = []
    if iou.max(initial=0.0) < 0.5:
        found.append((score * (1 - covered), "missing", None, j))
    held = np.flatnonzero(case.same[:, j] & (case.of_label[:, j] >= _HELD) & (iou < _SOUND))
    if len(held) > 1:
        cover = min(1.0, float(case.of_found[held, j].sum()))
        found.append((score * cover, "split", int(held[0]), j))
    return found

"""Per-object figures of a case: found or missed, and how well outlines agree; with the false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmaskrcnn.evaluation.metrics.match_detections import match_detections
from medmaskrcnn.evaluation.metrics.overlap import dice
from medmaskrcnn.evaluation.metrics.pairing import PairedCase
from medmaskrcnn.evaluation.metrics.sizes import BALL_DIAMETERS_MM, equivalent_diameter
from medmaskrcnn.evaluation.metrics.surface import TOLERANCE, surface_agreement
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask

ObjectOutcome = Literal["found", "missed", "false positive"]


@dataclass(frozen=True)
class ObjectFigures:
    """One reference object of a case, or one false positive.

    Attributes:
        class_name: Its class.
        outcome: Found, missed or false positive.
        predicted, reference: Index among the case's candidates and references; ``None`` if there is none.
        score: Score of the prediction.
        diameter: Diameter of the ball of equal volume (of the prediction for a false positive); mm or pixels.
        iou, dice: Agreement of the masks; 0 for missed objects and false positives. Voxels to ignore count in ``iou``,
            by which objects are matched, and in nothing else.
        volume_error: (predicted - reference) / reference volume, of found objects.
        hd95, nsd: See :mod:`medmaskrcnn.evaluation.metrics.surface`, of found objects.
    """

    class_name: str
    outcome: ObjectOutcome
    predicted: int | None
    reference: int | None
    score: float | None
    diameter: float
    iou: float = 0.0
    dice: float = 0.0
    volume_error: float | None = None
    hd95: float | None = None
    nsd: float | None = None


def compare_objects(
    predicted: Instances,
    reference: Instances,
    paired: PairedCase,
    class_names: Sequence[str],
    *,
    score: float,
    match_iou: float = 0.5,
    tolerance: float = TOLERANCE,
    surfaces: bool = True,
    known: PairedCase | None = None,
) -> tuple[ObjectFigures, ...]:
    """Objects in the order of the references, then false positives by falling score.

    Args:
        predicted: All candidates of the case, without ignored voxels.
        reference: The reference, without ignored voxels.
        paired: The two compared by whole masks; ignored references and predictions matched with them are left out.
        class_names: The classes that they were paired by.
        score: Score threshold of the result (inclusive).
        match_iou: IoU of the masks from which an object counts as found, in (0, 1].
        tolerance: Tolerance of the normalised surface distance, mm (pixels if the spacing is unknown).
        surfaces: Compute the surface distances, which takes most of the time.
        known: ``paired`` compared without ignored voxels; ``None`` if there are none.
    """
    matched = match_detections([paired], class_names, ranges=BALL_DIAMETERS_MM, thresholds=(match_iou,))
    kept = matched.score.astype(np.float32) >= np.float32(score)
    hits = {int(matched.match[n, 0]): int(n) for n in np.flatnonzero(matched.hit[:, 0, 0] & kept)}
    true_diameters = equivalent_diameter(paired.true_voxels, paired.grid.voxel_volume_unit3)
    rows, rows_of = [], {int(i): row for row, i in enumerate(paired.predicted)}
    for m in np.flatnonzero(~paired.ignored).tolist():
        name, j = class_names[paired.true_labels[m]], int(paired.reference[m])
        if m not in hits:
            rows.append(ObjectFigures(name, "missed", None, j, None, float(true_diameters[m])))
            continue
        n = hits[m]
        i, iou = int(matched.predicted[n]), float(matched.iou[n, 0])
        left = iou if known is None else float(known.iou[rows_of[i], m])
        size, true_size = predicted.masks[i].n_voxels, reference.masks[j].n_voxels
        surface = surface_agreement(predicted, i, reference, j, tolerance=tolerance) if surfaces else None
        rows.append(
            ObjectFigures(
                class_name=name,
                outcome="found",
                predicted=i,
                reference=j,
                score=float(matched.score[n]),
                diameter=float(true_diameters[m]),
                iou=iou,
                dice=2 * left / (1 + left),
                volume_error=(size - true_size) / true_size,
                hd95=surface.hd95 if surface else None,
                nsd=surface.nsd if surface else None,
            )
        )
    errors = kept & ~matched.hit[:, 0, 0] & ~matched.ignored[:, 0, 0]
    return (
        *rows,
        *(
            _false_positive(predicted, int(matched.predicted[n]), class_names[matched.label[n]])
            for n in np.flatnonzero(errors)
        ),
    )


def _false_positive(predicted: Instances, i: int, class_name: str) -> ObjectFigures:
    diameter = equivalent_diameter(np.array([predicted.masks[i].n_voxels]), predicted.grid.voxel_volume_unit3)
    return ObjectFigures(class_name, "false positive", i, None, float(predicted.scores[i]), float(diameter[0]))


def class_dice(predicted: Instances, reference: Instances, class_name: str) -> float | None:
    """Dice of all voxels of a class in a case, whichever object they belong to; ``None`` if neither side has any.

    Args:
        predicted: The result's instances.
        reference: The reference on the same grid.
        class_name: A class that at least one of them has.
    """
    found, true = (
        Mask.empty().union(*(m for m, k in zip(one.masks, one.labels, strict=True) if one.class_names[k] == class_name))
        for one in (predicted, reference)
    )
    whole = found.union(true)
    if whole.is_empty:
        return None
    return dice(*(mask.dense(whole.array.shape, whole.start) for mask in (found, true)))

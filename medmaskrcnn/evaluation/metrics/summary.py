"""All metrics of a set of cases in one table: per class and overall, masks and boxes, with confidence intervals.

A class's figure is undefined (``None``) if there is nothing to compute it from. Overall figures are means over the
classes in which they are defined; numbers of objects and false positives are summed. A case counts for the classes that
were annotated in it; regions to ignore: :mod:`medmaskrcnn.evaluation.metrics.ignored`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medmaskrcnn.evaluation.metrics.average_precision import MAX_DETECTIONS, coco_table, size_table
from medmaskrcnn.evaluation.metrics.bootstrap import (
    LEVEL,
    REPLICATES,
    Estimate,
    estimate,
    mean_of_defined,
    patient_weights,
)
from medmaskrcnn.evaluation.metrics.counts import (
    Counts,
    count,
    data_science_bowl_table,
    detection_table,
    empty_case_table,
    empty_cases,
    over_all_classes,
    panoptic_table,
    ratio,
)
from medmaskrcnn.evaluation.metrics.froc import LUNA16_POINTS, froc
from medmaskrcnn.evaluation.metrics.ignored import compared_without_ignored, ignored_voxels, without_ignored
from medmaskrcnn.evaluation.metrics.match_detections import LOW_THRESHOLD, THRESHOLDS, MatchResult, match_detections
from medmaskrcnn.evaluation.metrics.objects import ObjectFigures, class_dice, compare_objects
from medmaskrcnn.evaluation.metrics.pairing import Kind, PairedCase, pair_case
from medmaskrcnn.evaluation.metrics.sizes import equivalent_diameter, size_ranges_for
from medmaskrcnn.evaluation.metrics.surface import TOLERANCE
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray
from medmaskrcnn.structures.overlap import voxel_counts

FROC_CURVE_POINTS = tuple(float(x) for x in np.geomspace(1 / 16, 16, 65))
"""False positives per scan at which the curve is drawn."""


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the metrics.

    Attributes:
        match_iou: IoU from which an object counts as found, for recall, precision, false positives and outlines.
        froc_iou: IoU from which an object counts as found in the FROC curve.
        tolerance: Tolerance of the normalised surface distance, mm; pixels if the spacing is unknown.
        min_diameter: Objects whose ball of equal volume has a smaller diameter (mm; pixels if the spacing is unknown)
            need not be found; finding them is no error.
        max_detections: COCO's limits on detections per case and class; the last is lifted if a case has more objects
            of a class than that.
        surfaces: Compute HD95 and the normalised surface distance.
        replicates: Draws of the bootstrap over patients.
        level: Level of the confidence intervals.
        seed: Seed of the draws.
    """

    match_iou: float = 0.5
    froc_iou: float = LOW_THRESHOLD
    tolerance: float = TOLERANCE
    min_diameter: float = 0.0
    max_detections: tuple[int, ...] = MAX_DETECTIONS
    surfaces: bool = True
    replicates: int = REPLICATES
    level: float = LEVEL
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CaseFigures:
    """Figures of a case: enough for every table, without its masks.

    Attributes:
        id, patient: Ids of case and patient.
        masks, boxes: Its predictions and references, compared by masks and by boxes.
        objects: See :class:`ObjectFigures`.
        class_dice: Dice of all voxels of each class, in the order of the classes; ``None`` where it was not annotated.
        seconds: Duration of the segmentation.
        known: ``masks`` compared without ignored voxels; ``None`` if there are none.
    """

    id: str
    patient: str
    masks: PairedCase
    boxes: PairedCase
    objects: tuple[ObjectFigures, ...]
    class_dice: tuple[float | None, ...]
    seconds: float | None = None
    known: PairedCase | None = None

    @property
    def error(self) -> float:
        """0 for a perfect case, 1 if nothing was found correctly: 1 - sum of Dice / (TP + FP / 2 + FN / 2)."""
        found = sum(o.outcome == "found" for o in self.objects)
        whole = found + 0.5 * (len(self.objects) - found)
        return 1 - sum(o.dice for o in self.objects) / whole if whole else 0.0


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """One class's table, or the one over all classes.

    Attributes:
        references: Number of objects to find.
        predictions: Number of instances in the result.
        empty_cases: Number of cases without an object of the class; over all classes: of any class.
        mask, box: AP, AR, FROC and the counts at the operating score, by name, from masks and from boxes.
        outline: Dice, surface distances and volume errors, by name.
        froc_curve: Share found at :data:`FROC_CURVE_POINTS`, from masks; ``None`` if there is no object.
    """

    references: int
    predictions: int
    empty_cases: int = 0
    mask: dict[str, Estimate] = field(default_factory=dict)
    box: dict[str, Estimate] = field(default_factory=dict)
    outline: dict[str, Estimate] = field(default_factory=dict)
    froc_curve: tuple[Estimate, ...] | None = None


def figures_of_case(
    case_id: str,
    patient: str,
    predicted: Instances,
    reference: Instances,
    class_names: Sequence[str],
    settings: MetricSettings,
    *,
    score: float,
    crowd: BoolArray | None = None,
    ignored: BoolArray | None = None,
    annotated: Sequence[str] | None = None,
    seconds: float | None = None,
) -> CaseFigures:
    """Compare one case's candidates with its references.

    Args:
        case_id: Case id.
        patient: Patient id.
        predicted: All candidates, whatever their score.
        reference: The reference on the same grid.
        class_names: Classes to evaluate.
        settings: See :class:`MetricSettings`.
        score: Score threshold of the result (inclusive).
        crowd: ``(M,)`` references that stand for many objects or are regions to ignore; none by default.
        ignored: ``(M,)`` references that need not be found; none by default.
        annotated: Classes that were annotated in the case; all by default.
        seconds: Duration of the segmentation.

    Raises:
        ValueError: if the two are on different grids.
    """
    crowd = np.zeros(len(reference), np.bool_) if crowd is None else crowd
    voids = ignored_voxels(reference, crowd)
    left, true_left = (without_ignored(one, voids) for one in (predicted, reference))
    sizes = voxel_counts(true_left).astype(np.float64)
    aside = equivalent_diameter(sizes, reference.grid.voxel_volume_unit3) < settings.min_diameter
    aside |= (sizes == 0) & (voxel_counts(reference) > 0)
    aside |= False if ignored is None else ignored
    kinds: tuple[Kind, Kind] = ("mask", "box")
    masks, boxes = (
        pair_case(
            predicted, reference, class_names=class_names, kind=kind, patient=patient, crowd=crowd, ignored=aside,
            annotated=annotated,
        )
        for kind in kinds
    )  # fmt: skip
    known = compared_without_ignored(masks, left, true_left) if voids else None
    objects = compare_objects(
        left,
        true_left,
        masks,
        class_names,
        score=score,
        match_iou=settings.match_iou,
        tolerance=settings.tolerance,
        surfaces=settings.surfaces,
        known=known,
    )
    kept = left.select(np.flatnonzero(predicted.scores >= np.float32(score)))
    overall = tuple(
        class_dice(kept, true_left, name) if annotated is None or name in annotated else None for name in class_names
    )
    return CaseFigures(case_id, patient, masks, boxes, objects, overall, seconds, known)


def summarise(
    cases: Sequence[CaseFigures], class_names: Sequence[str], settings: MetricSettings, *, score: float
) -> tuple[dict[str, ClassFigures], ClassFigures]:
    """The table of each class, and the one over all classes.

    Args:
        cases: At least one.
        class_names: The classes used to compute the figures of the cases.
        settings: The settings used to compute them.
        score: Score threshold of the result (inclusive).
    """
    weights = patient_weights([c.patient for c in cases], replicates=settings.replicates, seed=settings.seed)
    ranges = size_ranges_for([c.masks.grid for c in cases])
    thresholds = sorted({*THRESHOLDS, settings.match_iou, settings.froc_iou})
    matched = {
        "mask": match_detections([c.masks for c in cases], class_names, ranges=ranges, thresholds=thresholds),
        "box": match_detections([c.boxes for c in cases], class_names, ranges=ranges, thresholds=thresholds),
    }
    tables = {kind: _detection_figures(verdict, weights, settings, score) for kind, verdict in matched.items()}
    if any(c.known for c in cases):
        left = match_detections([c.known or c.masks for c in cases], class_names, ranges=ranges, thresholds=thresholds)
        tables["mask"] |= panoptic_table(left, weights, score=score)
    tables["outline"] = _outline_figures(cases, class_names, weights)
    curve_at = matched["mask"].threshold_index(settings.froc_iou)
    curves = froc(matched["mask"], weights, threshold_index=curve_at, points=FROC_CURVE_POINTS)
    references = matched["mask"].n_references[:, :, 0].sum(axis=0)
    kept = matched["mask"].score.astype(np.float32) >= np.float32(score)
    predictions = np.bincount(matched["mask"].label[kept], minlength=len(class_names))

    at_match = {kind: _at_match(one, settings, score) for kind, one in matched.items()}
    empty = empty_cases(at_match["mask"]).sum(axis=0)
    over = {kind: over_all_classes(counts) for kind, counts in at_match.items()}

    def estimates(table: dict[str, FloatArray], k: int) -> dict[str, Estimate]:
        return {name: estimate(values[k], level=settings.level) for name, values in table.items()}

    classes = {
        name: ClassFigures(
            references=int(references[k]),
            predictions=int(predictions[k]),
            empty_cases=int(empty[k]),
            **{kind: estimates(table, k) for kind, table in tables.items()},
            froc_curve=_curve(curves[k], settings.level),
        )
        for k, name in enumerate(class_names)
    }
    together = ClassFigures(
        references=int(references.sum()),
        predictions=int(predictions.sum()),
        empty_cases=int(empty_cases(over["mask"]).sum()),
        **{
            kind: estimates(_over_classes(table) | (empty_case_table(over[kind], weights) if kind in over else {}), 0)
            for kind, table in tables.items()
        },
        froc_curve=_curve(np.stack([mean_of_defined(curves[:, p]) for p in range(curves.shape[1])]), settings.level),
    )
    return classes, together


def _at_match(matched: MatchResult, settings: MetricSettings, score: float) -> Counts:
    """Hits and errors of the result at the IoU from which an object counts as found."""
    return count(matched, score=score, threshold_index=matched.threshold_index(settings.match_iou))


def _detection_figures(
    matched: MatchResult, weights: FloatArray, settings: MetricSettings, score: float
) -> dict[str, FloatArray]:
    """Figures of masks or boxes, each ``(K, R)``."""
    crowded = matched.n_references[:, :, 0].max() > settings.max_detections[-1]
    limits = (*settings.max_detections[:-1], None if crowded else settings.max_detections[-1])
    points = froc(matched, weights, threshold_index=matched.threshold_index(settings.froc_iou))
    at_match = _at_match(matched, settings, score)
    return {
        **coco_table(matched, weights, max_detections=limits),
        **size_table(matched, weights[:1], max_detections=limits[-1]),
        "cpm": points.mean(axis=1),
        **{f"sensitivity_at_{point:g}": points[:, p] for p, point in enumerate(LUNA16_POINTS)},
        **detection_table(at_match, weights),
        **empty_case_table(at_match, weights),
        **data_science_bowl_table(matched, weights, score=score),
        **panoptic_table(matched, weights, score=score),
    }


def _outline_figures(
    cases: Sequence[CaseFigures], class_names: Sequence[str], weights: FloatArray
) -> dict[str, FloatArray]:
    """Figures of the outlines, each ``(K, R)``; medians only at the first weighting."""
    places = {name: k for k, name in enumerate(class_names)}
    shape = (len(cases), len(class_names))

    def mean(name: str, outcomes: tuple[str, ...]) -> FloatArray:
        total, n = np.zeros(shape), np.zeros(shape)
        for c, case in enumerate(cases):
            for one in case.objects:
                value = getattr(one, name)
                if one.outcome in outcomes and value is not None:
                    total[c, places[one.class_name]] += value
                    n[c, places[one.class_name]] += 1
        return ratio(total, n, weights)

    errors: list[list[float]] = [[] for _ in class_names]
    for one in (o for case in cases for o in case.objects):
        if one.volume_error is not None:
            errors[places[one.class_name]].append(one.volume_error)
    by_class = np.array([[np.nan if d is None else d for d in case.class_dice] for case in cases]).reshape(shape)
    defined = ~np.isnan(by_class)
    lengths = 1.0 if length_unit(cases) else np.nan
    return {
        "dice": mean("dice", ("found",)),
        "dice_with_missed": mean("dice", ("found", "missed")),
        "class_dice": ratio(np.where(defined, by_class, 0), defined.astype(np.float64), weights),
        "hd95": lengths * mean("hd95", ("found",)),
        "nsd": lengths * mean("nsd", ("found",)),
        "median_volume_error": np.array([[np.median(e) if e else np.nan] for e in errors]),
        "median_absolute_volume_error": np.array([[np.median(np.abs(e)) if e else np.nan] for e in errors]),
    }


def length_unit(cases: Sequence[CaseFigures]) -> str | None:
    """Unit of lengths in these cases, ``"mm"`` or ``"px"``; ``None`` if only some of them have millimetres."""
    known = {case.masks.grid.spacing_known for case in cases}
    return None if len(known) > 1 else "mm" if known == {True} else "px"


def _over_classes(table: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Each figure over all classes, ``(1, R)``: false positives summed, all others averaged."""
    return {
        name: (_sum_of_defined(values) if name == "false_positives_per_case" else mean_of_defined(values))[None]
        for name, values in table.items()
    }


def _sum_of_defined(values: FloatArray) -> FloatArray:
    """``(R,)`` sum of ``(K, R)`` over the classes in which a figure is defined; NaN if it is defined in none."""
    defined = ~np.isnan(values)
    return np.where(defined.any(axis=0), np.where(defined, values, 0).sum(axis=0), np.nan)


def _curve(values: FloatArray, level: float) -> tuple[Estimate, ...] | None:
    return None if np.isnan(values[0, 0]) else tuple(estimate(point, level=level) for point in values)

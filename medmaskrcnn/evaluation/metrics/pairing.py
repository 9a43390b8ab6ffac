"""One case as input of all metrics: predictions and references with their sizes, scores and IoUs.

Computed from the instances once, after which their masks are no longer needed: an evaluation of many large scans keeps
only a few numbers of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmaskrcnn.evaluation.metrics.assignment import IntArray
from medmaskrcnn.evaluation.metrics.overlap import box_intersections, box_volumes, over_union
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts

Kind = Literal["mask", "box"]


@dataclass(frozen=True, eq=False)
class PairedCase:
    """N predictions by falling score and M references of one case.

    Attributes:
        patient: Patient id.
        grid: Grid of the scan.
        labels, scores: ``(N,)`` class index; score 0..1.
        n_voxels: ``(N,)`` size of each mask or box.
        predicted, reference: ``(N,)`` and ``(M,)`` index of each among the case's candidates and references.
        true_labels: ``(M,)`` class index.
        true_voxels: ``(M,)`` size of each mask, also when boxes are compared, as in COCO.
        crowd: ``(M,)`` references that stand for many objects at once.
        ignored: ``(M,)`` references that need not be found, and finding them is no error; includes crowds.
        iou: ``(N, M)`` float64, of pairs of one class.
        annotated: ``(K,)`` classes that were annotated in this case, those that count; ``None``: all were.
    """

    patient: str
    grid: Grid
    labels: IntArray
    scores: FloatArray
    n_voxels: FloatArray
    predicted: IntArray
    reference: IntArray
    true_labels: IntArray
    true_voxels: FloatArray
    crowd: BoolArray
    ignored: BoolArray
    iou: FloatArray
    annotated: BoolArray | None = None


def pair_case(
    predicted: Instances,
    reference: Instances,
    *,
    class_names: Sequence[str],
    kind: Kind = "mask",
    patient: str = "",
    crowd: BoolArray | None = None,
    ignored: BoolArray | None = None,
    annotated: Sequence[str] | None = None,
) -> PairedCase:
    """Compare every prediction of a case with every reference.

    Args:
        predicted: All candidates, whatever their score. Those without a voxel are left out (they are no part of a
            result either).
        reference: The reference on the same grid.
        class_names: Classes to evaluate, by name; predictions and references of other classes are left out.
        kind: Compare masks, or boxes (for references: the boxes around their masks, ``reference.boxes``).
        patient: Patient id.
        crowd: ``(M,)`` references that stand for many objects at once (COCO's ``iscrowd``); none by default.
        ignored: ``(M,)`` references that need not be found; none by default.
        annotated: Names of the classes that were annotated in this case; predictions and references of other classes
            are left out, since nothing is known of these. All by default.

    Raises:
        ValueError: if the grids differ in shape, or ``crowd`` or ``ignored`` in length from the references.
    """
    none = np.zeros(len(reference), np.bool_)
    crowd, ignored = none if crowd is None else crowd, none if ignored is None else ignored
    if crowd.shape != none.shape or ignored.shape != none.shape:
        raise ValueError(f"crowd and ignored need one entry for each of {len(reference)} references")
    known = None if annotated is None else np.array([name in annotated for name in class_names], np.bool_)
    labels, true_labels = (_labels(one, class_names, known) for one in (predicted, reference))
    one_class = (labels[:, None] == true_labels) & (labels[:, None] >= 0)
    true_voxels = voxel_counts(reference).astype(np.float64)
    order = np.argsort(-predicted.scores.astype(np.float64), kind="stable")
    reported = (labels >= 0) & (voxel_counts(predicted) > 0)
    mine, true = order[reported[order]], np.flatnonzero(true_labels >= 0)
    if predicted.grid.shape != reference.grid.shape:
        raise ValueError(f"instances must lie on one grid, got {predicted.grid.shape} and {reference.grid.shape}")
    if kind == "mask":
        n_voxels, true_sizes = voxel_counts(predicted).astype(np.float64), true_voxels
        shared = shared_voxel_counts(predicted, reference, wanted=one_class).astype(np.float64)
    else:
        n_voxels, true_sizes = box_volumes(predicted.boxes), box_volumes(reference.boxes)
        shared = box_intersections(predicted.boxes, reference.boxes)
    return PairedCase(
        patient=patient,
        grid=predicted.grid,
        labels=labels[mine],
        scores=predicted.scores[mine].astype(np.float64),
        n_voxels=n_voxels[mine],
        predicted=mine,
        reference=true,
        true_labels=true_labels[true],
        true_voxels=true_voxels[true],
        crowd=crowd[true],
        ignored=ignored[true] | crowd[true],
        iou=over_union(shared, n_voxels, true_sizes, crowd=crowd)[np.ix_(mine, true)],
        annotated=known,
    )


def _labels(instances: Instances, class_names: Sequence[str], known: BoolArray | None) -> IntArray:
    """``(N,)`` index of each object's class in ``class_names``, -1 for those of other and of unknown classes."""
    places = {name: k for k, name in enumerate(class_names) if known is None or known[k]}
    lookup = np.array([places.get(name, -1) for name in instances.class_names], np.int64)
    return lookup[instances.labels] if len(instances) else np.zeros(0, np.int64)

"""Voxels to ignore in a case: what lies there is neither right nor wrong.

Regions to ignore are references of the kind *crowd* (COCO's ``iscrowd``): they need not be found, and a prediction of
their class that lies in one (intersection over the prediction's own size) is no error. Average precision compares whole
masks, as COCO does. Dice, surface distances, volume errors and panoptic quality (Kirillov et al. 2019, "void labels")
compare what is left of both masks without the ignored voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from medmaskrcnn.evaluation.metrics.overlap import over_union
from medmaskrcnn.evaluation.metrics.pairing import PairedCase
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray, Mask
from medmaskrcnn.structures.overlap import shared_voxel_counts, voxel_counts


def ignored_voxels(reference: Instances, crowd: BoolArray) -> dict[str, Mask]:
    """Voxels to ignore for each class that has any.

    Args:
        reference: M references.
        crowd: ``(M,)`` references that are regions to ignore.
    """
    regions: dict[str, list[Mask]] = {}
    for m in np.flatnonzero(crowd):
        regions.setdefault(reference.class_names[reference.labels[m]], []).append(reference.masks[m])
    return {name: masks[0].union(*masks[1:]) for name, masks in regions.items()}


def without_ignored(instances: Instances, ignored: Mapping[str, Mask]) -> Instances:
    """The same instances, in the same order, without the voxels to ignore for their class; some may have none left."""
    names = [instances.class_names[label] for label in instances.labels]
    masks = [
        mask.difference(ignored[name]) if name in ignored else mask
        for name, mask in zip(names, instances.masks, strict=True)
    ]
    return replace(instances, masks=tuple(masks))


def compared_without_ignored(paired: PairedCase, predicted: Instances, reference: Instances) -> PairedCase:
    """A case compared by what is left of its masks; whether a prediction lies in a region to ignore remains as it was.

    Args:
        paired: The case, compared by whole masks.
        predicted: Its predictions without ignored voxels.
        reference: Its references without ignored voxels.
    """
    mine, true = paired.predicted, paired.reference
    shared = shared_voxel_counts(predicted, reference)[np.ix_(mine, true)].astype(np.float64)
    one_class = paired.labels[:, None] == paired.true_labels
    left = over_union(
        np.where(one_class, shared, 0.0),
        voxel_counts(predicted)[mine].astype(np.float64),
        voxel_counts(reference)[true].astype(np.float64),
    )
    return replace(paired, iou=np.where(paired.crowd, paired.iou, left))

"""What one object of a class is: each labelled part as it comes, each connected part, or all of the class in a scan.

A map of classes (nnU-Net's, TotalSegmentator's) says which voxels are tumour, not which of them are one tumour; a
detector is trained on and judged by objects. An object may also lie within another (a tumour in a liver), whose mask
then holds its voxels too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import NEIGHBOURS, connected_components
from medmaskrcnn.structures.mask import Mask

ObjectRule = Literal["components", "whole", "instances"]
"""``"components"``: each connected part of a class is an object. ``"whole"``: all of a class in a scan is one object.
``"instances"``: each labelled part (a value of a map, a segment, a region, an annotation) is one, as in the file."""

OBJECT_RULES: tuple[ObjectRule, ...] = get_args(ObjectRule)


def instances_by_rule(
    found: Instances, rules: Mapping[str, ObjectRule], within: Mapping[str, str] | None = None
) -> Instances:
    """Instances whose objects are what the rules say.

    Args:
        found: The labelled parts; those without a voxel are left out.
        rules: Rule by class; classes without one stay as they are.
        within: Class to the class that it lies in; see :func:`nested`.

    Returns:
        Objects by class in the order of ``found``, the parts of a class largest first; an object made of several has
        the highest of their scores.
    """
    parts: list[tuple[LabelledObject, float]] = []
    for label, name in enumerate(found.class_names):
        own = [i for i in np.flatnonzero(found.labels == label) if not found.masks[i].is_empty]
        masks, scores = [found.masks[i] for i in own], [float(found.scores[i]) for i in own]
        rule = rules.get(name, "instances")
        if rule != "instances" and masks:
            whole, best = masks[0].union(*masks[1:]), max(scores)
            masks = [whole] if rule == "whole" else connected_components(whole)
            masks.sort(key=lambda mask: -mask.n_voxels)
            scores = [best] * len(masks)
        parts += [(LabelledObject(name, mask), score) for mask, score in zip(masks, scores, strict=True)]
    objects = nested([one for one, _ in parts], within or {})
    return Instances.from_masks(
        found.grid,
        found.class_names,
        [found.class_names.index(one.class_name) for one in objects],
        [one.mask for one in objects],
        scores=[score for _, score in parts],
    )


def nested(objects: Sequence[LabelledObject], within: Mapping[str, str]) -> list[LabelledObject]:
    """Objects with inner objects' voxels added to the outer ones, each to the one that it touches most.

    Args:
        objects: On one grid.
        within: Class of the inner object to that of the outer, ``{"tumour": "liver"}``.
    """
    result = list(objects)
    for inner in (one for one in objects if one.class_name in within):
        hosts = [i for i, one in enumerate(result) if one.class_name == within[inner.class_name]]
        before = [a - 1 for a in inner.mask.start]
        grown = Mask(before, ndimage.binary_dilation(np.pad(inner.mask.array, 1), structure=NEIGHBOURS))
        touched = {i: grown.overlap(result[i].mask) for i in hosts}
        host = max(touched, key=lambda i: touched[i], default=None)
        if host is not None and touched[host]:
            result[host] = replace(result[host], mask=result[host].mask.union(inner.mask))
    return result

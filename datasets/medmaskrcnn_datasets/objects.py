"""Converts semantic label maps to objects, and objects to label maps.

A semantic map gives the class of each voxel, but a detector is trained on objects. A rule for each class defines what
one object is. Objects that share voxels go to several label maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.data.case_labels import IgnoredRegion
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.io.labels.object_rules import nested
from medmaskrcnn.structures.label_maps import connected_components, masks_of_labels, paint_labels
from medmaskrcnn.structures.overlap import pack_layers

Rule = Literal["auto", "components", "whole", "instances", "value", "one"]
"""What one object of a class is: each connected part of its voxels, all of them in a case, or each labelled part, which
is one value of the map. ``"auto"``: parts or the whole, as the class's name and the labels show. ``"value"`` and
``"one"`` are older words for ``"instances"`` and ``"whole"``."""

MOST_OBJECTS = np.iinfo(np.uint16).max
"""In one label map; its values are 16 bits."""


@dataclass(frozen=True)
class ClassRules:
    """How values of a label map become objects.

    Attributes:
        default: The rule of classes not in ``by_class``; ``"auto"`` must be settled before objects are made
            (:mod:`medmaskrcnn_datasets.class_rules`).
        by_class: Rules of single classes, by their final names.
        rename: New names of classes; several may share one (right and left kidney to kidney), and a class whose new
            name is empty is left out.
        within: Class to the class that it lies in (tumour to liver): the outer object's mask then holds the inner's
            voxels too.
        least_voxels: Connected parts smaller than this are left out.
        ignore: Values of the label map whose voxels are to be ignored (``255``, where readers disagree).
        strict: Rules of classes that a data set lacks are refused; where several sets are converted, they may be of
            another.
    """

    default: Rule = "value"
    by_class: Mapping[str, Rule] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    within: Mapping[str, str] = field(default_factory=dict)
    least_voxels: int = 1
    ignore: tuple[int, ...] = ()
    strict: bool = True

    def named(self, classes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """Classes and their values under their new names.

        Raises:
            ValueError: if a rule names an unknown class.
        """
        unknown = sorted(set(self.rename) - set(classes))
        result: dict[str, tuple[int, ...]] = {}
        for name, values in classes.items():
            new = self.rename.get(name, name)
            if new:
                result[new] = tuple(dict.fromkeys((*result.get(new, ()), *values)))
        unknown += sorted({*self.by_class, *self.within, *self.within.values()} - set(result))
        if unknown and self.strict:
            raise ValueError(f"rules speak of classes {unknown}; there are {', '.join(classes)}")
        return result

    def keep_values(self, classes: Mapping[str, Sequence[int]]) -> bool:
        """True if each value of the map is one object already, so that the map can be used as it is."""
        values = [value for group in classes.values() for value in group]
        simple = all(self.rule(name) == "value" or (self.rule(name) == "whole" and len(group) == 1)
                     for name, group in classes.items())  # fmt: skip
        return simple and not self.within and len(set(values)) == len(values)

    def rule(self, class_name: str) -> Rule:
        """The rule of a class, never the older word."""
        rule = self.by_class.get(class_name, self.default)
        return "whole" if rule == "one" else "value" if rule == "instances" else rule


def objects_of_classes(
    values: NDArray[np.integer], classes: Mapping[str, Sequence[int]], rules: ClassRules
) -> list[LabelledObject]:
    """Objects of a semantic label map; values to ignore belong to none.

    Args:
        values: ``(D, H, W)``.
        classes: Final class names and their values; a value may belong to several classes (regions).
        rules: What one object is.

    Returns:
        Objects by class, within a class by value, and connected parts largest first.
    """
    masks = masks_of_labels(values, {value for group in classes.values() for value in group} - {*rules.ignore})
    found: list[LabelledObject] = []
    for name, group in classes.items():
        parts = [masks[value] for value in group if value in masks]
        if parts and rules.rule(name) != "value":
            parts = [parts[0].union(*parts[1:])]
        if rules.rule(name) == "components":
            parts = [part for whole in parts for part in connected_components(whole)]
            parts = [part for part in parts if part.n_voxels >= rules.least_voxels]
            parts.sort(key=lambda part: -part.n_voxels)
        found += [LabelledObject(name, part) for part in parts]
    return nested(found, rules.within)


def packed_maps(
    objects: Sequence[LabelledObject | IgnoredRegion], shape: tuple[int, int, int]
) -> tuple[list[NDArray[np.uint16]], tuple[ManifestInstance, ...]]:
    """Label maps that hold all objects: each goes to the first map in which its voxels are free.

    Args:
        objects: Objects, and regions to ignore; those without a voxel are left out.
        shape: Shape of the scan, D, H, W.

    Returns:
        Maps ``(D, H, W)``, at least one, and the meaning of their values.

    Raises:
        ValueError: if one map would hold more than 65,535 objects.
    """
    objects = [one for one in objects if not one.mask.is_empty]
    layers = pack_layers([one.mask for one in objects]) or [[]]
    if max(map(len, layers)) > MOST_OBJECTS:
        raise ValueError(f"a case has more than {MOST_OBJECTS:,} objects. Leave the smallest out (least_voxels)")
    maps = [paint_labels([objects[i].mask for i in layer], shape, np.uint16) for layer in layers]
    place = {i: (number, value) for number, layer in enumerate(layers) for value, i in enumerate(layer, start=1)}
    instances = [
        ManifestInstance(
            value=place[i][1], class_name=one.class_name, map=place[i][0], ignore=isinstance(one, IgnoredRegion)
        )
        for i, one in enumerate(objects)
    ]
    return maps, tuple(instances)

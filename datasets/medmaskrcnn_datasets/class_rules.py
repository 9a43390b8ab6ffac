"""Settles what one object of a class is where nobody says so: by the class's name, else by what its labels show.

A finding (tumour, nodule) is an object wherever it lies, an organ that a body has once is one object. For all other
names the labels decide: several separate parts in many cases are objects; one part, or one beside specks, is one
object.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.data.class_kinds import is_lesion, is_single_organ
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.label_maps import connected_components, masks_of_labels
from medmaskrcnn_datasets.assemble import CountProgress
from medmaskrcnn_datasets.label_files import read_label_map
from medmaskrcnn_datasets.objects import ClassRules, Rule

SPECK = 0.05
"""Parts smaller than this share of a class's largest part in a case are specks."""

_MANY = 0.2  # share of a class's cases with several parts from which the parts are objects

LabelledFiles = tuple[str, Path, Path]
"""A case's id, its image and its label map."""


@dataclass(frozen=True)
class ClassParts:
    """Separate parts of one class in all cases, without specks.

    Attributes:
        cases: Cases with the class.
        several: Cases in which it has more than one part.
    """

    cases: int = 0
    several: int = 0

    def rule(self) -> Rule:
        """Whether the parts or the whole are one object."""
        return "components" if self.several and self.several >= _MANY * self.cases else "whole"


def settled_rules(
    rules: ClassRules,
    classes: Mapping[str, Sequence[int]],
    cases: Sequence[LabelledFiles],
    *,
    progress: CountProgress | None = None,
) -> ClassRules:
    """Rules in which every class has one of its own in place of ``"auto"``.

    Args:
        rules: As given; what they say of a class holds.
        classes: The data set's class names and their values.
        cases: Their label maps are read only if the name of a class does not decide; unreadable ones are passed over
            here, since the conversion reports them.
        progress: Called with the number of label maps looked at and their total.

    Raises:
        ValueError: if a rule names an unknown class.
    """
    named = rules.named(classes)
    by_class: dict[str, Rule] = {name: rules.rule(name) for name in named}
    open_classes = {}
    for name, rule in by_class.items():
        if rule == "auto":
            if is_lesion(name):
                by_class[name] = "components"
            elif is_single_organ(name):
                by_class[name] = "whole"
            else:
                open_classes[name] = named[name]
    if open_classes:
        for name, parts in _survey(open_classes, cases, rules.ignore, progress).items():
            by_class[name] = parts.rule()
    within = {inner: outer for inner, outer in rules.within.items() if inner in named and outer in named}
    return replace(rules, default="whole", by_class=by_class, within=within)


def parts_of(values: NDArray[np.integer], group: Iterable[int]) -> int:
    """Number of separate parts of a class in a label map ``(D, H, W)``, specks not counted."""
    masks = list(masks_of_labels(values, group).values())
    if not masks:
        return 0
    sizes = [part.n_voxels for part in connected_components(masks[0].union(*masks[1:]))]
    return sum(size >= SPECK * max(sizes) for size in sizes)


def told_objects(manifest: Manifest, rules: ClassRules) -> str:
    """One sentence on what became the objects: ``"tumour: 8 cases, 24 separate parts, taken as 24 objects"``."""
    objects: Counter[str] = Counter()
    cases: dict[str, set[str]] = defaultdict(set)
    for case in manifest.cases:
        for instance in case.instances:
            if instance.class_name is not None and not instance.ignore:
                objects[instance.class_name] += 1
                cases[instance.class_name].add(case.id)
    parts = [name for name in manifest.class_names if rules.rule(name) == "components"]
    words = [f"{n}: {len(cases[n])} cases, {objects[n]} separate parts, taken as {objects[n]} objects" for n in parts]
    wholes = [name for name in manifest.class_names if rules.rule(name) == "whole"]
    if wholes:
        words.append(f"{', '.join(wholes)}: one each")
    values = [name for name in manifest.class_names if rules.rule(name) == "value"]
    if values:
        words.append(f"{', '.join(values)}: one for each label value")
    return "; ".join(words)


def _survey(
    classes: Mapping[str, Sequence[int]],
    cases: Sequence[LabelledFiles],
    ignore: Sequence[int],
    progress: Callable[[int, int], None] | None,
) -> dict[str, ClassParts]:
    found = dict.fromkeys(classes, ClassParts())
    for done, (case, image, label) in enumerate(cases, start=1):
        try:
            values, _ = read_label_map(case, image, label)
        except ReadError:
            continue
        for name, group in classes.items():
            parts = parts_of(values, set(group) - set(ignore))
            before = found[name]
            found[name] = ClassParts(before.cases + (parts > 0), before.several + (parts > 1))
        if progress:
            progress(done, len(cases))
    return found

"""The result of every label reader: masks with class names, collected as instances of one scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels of one scan, with notes on how they were read.

    Attributes:
        instances: On the scan's grid, in the file's order, each with score 1.
        notes: What was left out, cut off, united or interpolated, one sentence each.
    """

    instances: Instances
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """One object: its class and its mask, which is tight."""

    class_name: str
    mask: Mask


def collect(
    grid: Grid,
    found: Sequence[LabelledObject],
    notes: Sequence[str] = (),
    *,
    class_names: Sequence[str] | None = None,
) -> LabelSet:
    """Collect objects as instances; classes are numbered in the order in which they first occur, or as ``class_names``.

    Objects of classes that are not in ``class_names`` are left out.
    """
    if class_names is not None:
        found = [one for one in found if one.class_name in class_names]
    class_names = tuple(class_names or dict.fromkeys(one.class_name for one in found))
    labels = [class_names.index(one.class_name) for one in found]
    instances = Instances.from_masks(grid, class_names, labels, [one.mask for one in found])
    return LabelSet(instances, tuple(dict.fromkeys(notes)))

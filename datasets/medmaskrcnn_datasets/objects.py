"""From maps of classes to objects, and from objects to label maps.

A map of classes says of each voxel whether it is liver; what a detector learns from are objects. A rule for each class
tells what one object is. Objects that share voxels go to several label maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.io.labels.label_set import LabelledMask
from medmaskrcnn.structures.instances import tight_crop

Rule = Literal["value", "one", "components"]
"""What one object of a class is: the voxels of one value, all its voxels in a case, or each connected part of them."""

MOST_OBJECTS = np.iinfo(np.uint16).max
"""In one label map; its values are 16 bits."""

_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)  # 26 in 3D, 8 in a slice


@dataclass(frozen=True)
class ClassRules:
    """How values of a label map become objects.

    Attributes:
        default: The rule of classes that ``by_class`` does not name.
        by_class: Rules of single classes, by their final names.
        rename: New names of classes; several may get the same (right and left kidney to kidney), and one whose new
            name is empty is left out.
        within: Class to the class that it lies in (tumour to liver): the outer object's mask then holds the inner's
            voxels too.
        least_voxels: Connected parts smaller than this are left out.
    """

    default: Rule = "value"
    by_class: Mapping[str, Rule] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    within: Mapping[str, str] = field(default_factory=dict)
    least_voxels: int = 1

    def named(self, classes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """Classes and their values under their new names.

        Raises:
            ValueError: if a rule speaks of a class that there is not.
        """
        unknown = sorted(set(self.rename) - set(classes))
        result: dict[str, tuple[int, ...]] = {}
        for name, values in classes.items():
            new = self.rename.get(name, name)
            if new:
                result[new] = tuple(dict.fromkeys((*result.get(new, ()), *values)))
        unknown += sorted({*self.by_class, *self.within, *self.within.values()} - set(result))
        if unknown:
            raise ValueError(f"rules speak of classes {unknown}; there are {', '.join(classes)}")
        return result

    def keep_values(self, classes: Mapping[str, Sequence[int]]) -> bool:
        """True if each value of the map is one object already, so that the map serves as it is."""
        values = [value for group in classes.values() for value in group]
        simple = all(self.rule(name) == "value" or (self.rule(name) == "one" and len(group) == 1)
                     for name, group in classes.items())  # fmt: skip
        return simple and not self.within and len(set(values)) == len(values)

    def rule(self, class_name: str) -> Rule:
        """The rule of a class."""
        return self.by_class.get(class_name, self.default)


def objects_of_classes(
    values: NDArray[np.integer], classes: Mapping[str, Sequence[int]], rules: ClassRules
) -> list[LabelledMask]:
    """Objects of a map of classes.

    Args:
        values: ``(D, H, W)``.
        classes: Final class names and their values; a value may belong to several classes (regions).
        rules: What one object is.

    Returns:
        Objects by class, within a class by value, and connected parts largest first.
    """
    largest = max((value for group in classes.values() for value in group), default=0)
    windows = ndimage.find_objects(values, max_label=largest)
    found: list[LabelledMask] = []
    for name, group in classes.items():
        there = [value for value in group if windows[value - 1] is not None]
        if rules.rule(name) == "value":
            parts = [[value] for value in there]
        else:
            parts = [there] if there else []
        for part in parts:
            mask, start = _cut(values, [windows[value - 1] for value in part], part)
            if rules.rule(name) == "components":
                found += [LabelledMask(name, *one) for one in _components(mask, start, rules.least_voxels)]
            else:
                found.append(LabelledMask(name, *tight_crop(mask, start)))
    return _nested(found, rules.within)


def _cut(
    values: NDArray[np.integer], windows: Sequence[tuple[slice, slice, slice]], wanted: Sequence[int]
) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Voxels of some values, in the box around them, and its first voxel."""
    low = [min(window[axis].start for window in windows) for axis in range(3)]
    high = [max(window[axis].stop for window in windows) for axis in range(3)]
    crop = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.isin(crop, wanted), (low[0], low[1], low[2])


def _components(
    mask: NDArray[np.bool_], start: tuple[int, int, int], least_voxels: int
) -> list[tuple[tuple[int, int, int], NDArray[np.bool_]]]:
    parts, _ = ndimage.label(mask, structure=_NEIGHBOURS)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    windows = ndimage.find_objects(parts)
    kept = [int(c) for c in np.argsort(-sizes, kind="stable") if sizes[c] >= max(1, least_voxels)]
    return [
        tight_crop(parts[windows[c - 1]] == c, [a + w.start for a, w in zip(start, windows[c - 1], strict=True)])
        for c in kept
    ]


def _nested(objects: list[LabelledMask], within: Mapping[str, str]) -> list[LabelledMask]:
    """Outer objects with the voxels of those that lie in them: of each inner one, in the one it touches most."""
    if not within:
        return objects
    result = list(objects)
    for inner in (one for one in objects if one.class_name in within):
        hosts = [i for i, one in enumerate(result) if one.class_name == within[inner.class_name]]
        grown = ndimage.binary_dilation(np.pad(inner.mask, 1), structure=_NEIGHBOURS)
        before = [a - 1 for a in inner.start]
        touched = {i: _shared(grown, before, result[i]) for i in hosts}
        host = max(touched, key=lambda i: touched[i], default=None)
        if host is not None and touched[host]:
            result[host] = _united(result[host], inner)
    return result


def _shared(mask: NDArray[np.bool_], start: Sequence[int], other: LabelledMask) -> int:
    """Voxels that two crops have in common."""
    low = np.maximum(start, other.start)
    high = np.minimum(np.add(start, mask.shape), np.add(other.start, other.mask.shape))
    if (high <= low).any():
        return 0
    first, second = (
        crop[tuple(slice(a, b) for a, b in zip(low - begin, high - begin, strict=True))]
        for crop, begin in ((mask, np.asarray(start)), (other.mask, np.asarray(other.start)))
    )
    return int(np.count_nonzero(first & second))


def _united(outer: LabelledMask, inner: LabelledMask) -> LabelledMask:
    low = np.minimum(outer.start, inner.start)
    high = np.maximum(np.add(outer.start, outer.mask.shape), np.add(inner.start, inner.mask.shape))
    mask = np.zeros(high - low, np.bool_)
    for one in (outer, inner):
        begin = np.subtract(one.start, low)
        mask[tuple(slice(a, a + n) for a, n in zip(begin, one.mask.shape, strict=True))] |= one.mask
    return LabelledMask(outer.class_name, (int(low[0]), int(low[1]), int(low[2])), mask)


def packed_maps(
    objects: Sequence[LabelledMask], shape: tuple[int, int, int]
) -> tuple[list[NDArray[np.uint16]], tuple[ManifestInstance, ...]]:
    """Label maps that hold all objects: each goes to the first map in which its voxels are free.

    Args:
        objects: Objects without a voxel are left out.
        shape: Of the scan, D, H, W.

    Returns:
        Maps ``(D, H, W)``, at least one, and what their values mean.

    Raises:
        ValueError: if one map would hold more than 65,535 objects.
    """
    maps = [np.zeros(shape, np.uint16)]
    counts = [0]
    instances = []
    for one in objects:
        if not one.mask.any():
            continue
        window = tuple(slice(a, a + n) for a, n in zip(one.start, one.mask.shape, strict=True))
        number = next((i for i, m in enumerate(maps) if not m[window][one.mask].any()), len(maps))
        if number == len(maps):
            maps.append(np.zeros(shape, np.uint16))
            counts.append(0)
        counts[number] += 1
        if counts[number] > MOST_OBJECTS:
            raise ValueError(f"a case has more than {MOST_OBJECTS:,} objects. Leave the smallest out (least_voxels)")
        maps[number][window][one.mask] = counts[number]
        instances.append(ManifestInstance(value=counts[number], class_name=one.class_name, map=number))
    return maps, tuple(instances)

"""Cases with semantic label maps, as in MSD, nnU-Net and folders of segmentations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.data.case_labels import IgnoredRegion, values_in
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.label_maps import label_windows, masks_of_labels
from medmaskrcnn_datasets.assemble import LabelFiles
from medmaskrcnn_datasets.label_files import read_label_map, write_label_maps
from medmaskrcnn_datasets.objects import ClassRules, objects_of_classes


def class_map_converter(
    case: str,
    image: Path,
    label: Path,
    classes: Mapping[str, Sequence[int]],
    rules: ClassRules,
    *,
    background: Sequence[int] | None = (),
) -> Callable[[Path], LabelFiles]:
    """A function that reads the labels of a case and, where its own map cannot be used, writes new ones.

    Args:
        case: Its id, for error messages and file names.
        image: One of its images; its header is compared with the map's.
        label: Semantic label map; unknown values are refused.
        classes: The data set's class names and their values.
        rules: What one object is, settled for every class; which values are to be ignored.
        background: Values besides 0 that are background; ``None``: all values without a class.

    Raises:
        ValueError: if the rules name an unknown class.
    """
    named = rules.named(classes)
    known = {*(background or ()), *rules.ignore, *(value for group in classes.values() for value in group)}

    def convert(folder: Path) -> LabelFiles:
        values, grid = read_label_map(case, image, label)
        present = values_in(values)
        unknown = sorted(set(present) - known)
        if unknown and background is not None:
            raise ReadError(f"case {case!r}: label values {unknown} mean nothing, known are {sorted(known)}: {label}")
        if rules.keep_values(named):
            class_of = {value: name for name, group in named.items() for value in group}
            return (label,), _instances({v: class_of[v] for v in present if v in class_of}, present, rules)
        objects = objects_of_classes(values, named, rules)
        kept = _as_it_is(values, objects)
        if kept is not None:
            return (label,), _instances(kept, present, rules)
        ignored = [IgnoredRegion(None, mask) for mask in masks_of_labels(values, rules.ignore).values()]
        try:
            return write_label_maps([*objects, *ignored], grid, folder / case)
        except ValueError as error:
            raise ReadError(f"case {case!r}: {error}: {label}") from error

    return convert


def _instances(class_of: Mapping[int, str], present: Sequence[int], rules: ClassRules) -> tuple[ManifestInstance, ...]:
    """The meaning of a map that is used as it is."""
    ignored = [value for value in present if value in rules.ignore]
    return tuple(
        [ManifestInstance(value=v, class_name=class_of[v]) for v in present if v in class_of and v not in ignored]
        + [ManifestInstance(value=v, ignore=True) for v in ignored]
    )


def _as_it_is(values: NDArray[np.integer], objects: Sequence[LabelledObject]) -> dict[int, str] | None:
    """The class of each value if every object is all of one value of the map, so that the map can be used as it is."""
    windows = label_windows(values)
    class_of: dict[int, str] = {}
    for one in objects:
        value = int(values[one.mask.window][one.mask.array][0])
        alone = value not in class_of and one.mask.window == windows[value]
        if not alone or not np.array_equal(one.mask.array, values[windows[value]] == value):
            return None
        class_of[value] = one.class_name
    return class_of

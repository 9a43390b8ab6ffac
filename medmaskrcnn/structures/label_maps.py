"""The truth as Instances: from a label map in which each object has its own voxel value.

A label map gives each voxel to one object alone, yet a tumour is part of its liver: ``part_of`` says so, and
the liver's mask then holds the tumour's voxels too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import BoolArray, Instances, empty_instances, tight_crop

_LARGEST_VALUE = 1_000_000  # find_objects keeps a list entry for each value up to the largest

Window = tuple[slice, slice, slice]


def reference_instances(
    label_map: NDArray[np.integer],
    grid: Grid,
    classes: Mapping[int, str],
    *,
    part_of: Mapping[int, int] | None = None,
    class_names: Sequence[str] | None = None,
) -> Instances:
    """Objects of a label map, with score 1 and their tight boxes as detection boxes.

    Args:
        label_map: ``(D, H, W)`` integers on ``grid``; voxels whose value ``classes`` does not name are background.
        grid: The scan's grid.
        classes: Voxel value of each object to its class name; one entry per object.
        part_of: Voxel value of an object to that of the object it lies in, whose mask then contains it too, and
            so on outwards.
        class_names: Order of the classes; by default the order in which ``classes`` first names them.

    Returns:
        The objects in the order of ``classes``; those without a voxel in this map are left out.

    Raises:
        ValueError: if shapes disagree, a value is not 1..1,000,000, a class is not among ``class_names``, or
            ``part_of`` names an unknown value or runs in a circle.
    """
    names = tuple(class_names) if class_names is not None else tuple(dict.fromkeys(classes.values()))
    _check(label_map, grid, classes, names)
    found = objects_of(label_map, tuple(classes), part_of or {})
    if not found:
        return empty_instances(grid, names)
    starts, masks = zip(*found.values(), strict=True)
    labels = [names.index(classes[value]) for value in found]
    low = np.asarray(starts, np.int64).reshape(-1, 3)
    high = low + np.asarray([m.shape for m in masks], np.int64).reshape(-1, 3)
    return Instances(
        grid=grid,
        class_names=names,
        labels=np.asarray(labels, np.int64),
        scores=np.ones(len(masks), np.float32),
        boxes=np.concatenate([low, high], axis=1).astype(np.float32),
        mask_starts=low,
        masks=masks,
    )


def objects_of(
    label_map: NDArray[np.integer], values: Sequence[int], part_of: Mapping[int, int]
) -> dict[int, tuple[tuple[int, int, int], BoolArray]]:
    """Start and tight crop of each object of a label map ``(D, H, W)``; one without a voxel is left out.

    Raises:
        ValueError: if ``part_of`` names a value that is not among ``values``, or runs in a circle.
    """
    family = _families(values, part_of)
    windows = ndimage.find_objects(label_map, max_label=max(values, default=0))
    found = {value: _object(label_map, windows, family[value]) for value in values}
    return {value: crop for value, crop in found.items() if crop is not None}


def _check(label_map: NDArray[np.integer], grid: Grid, classes: Mapping[int, str], names: tuple[str, ...]) -> None:
    if label_map.shape != grid.shape:
        raise ValueError(f"the label map must have the grid's shape {grid.shape}, got {label_map.shape}")
    if not np.issubdtype(label_map.dtype, np.integer):
        raise ValueError(f"a label map must hold integers, got {label_map.dtype}")
    wrong = [value for value in classes if not 1 <= value <= _LARGEST_VALUE]
    if wrong:
        raise ValueError(f"voxel values of objects must lie in 1..{_LARGEST_VALUE}, got {wrong}")
    unknown = sorted(set(classes.values()) - set(names))
    if unknown:
        raise ValueError(f"classes {unknown} are not among {names}")


def _families(values: Sequence[int], part_of: Mapping[int, int]) -> dict[int, set[int]]:
    """For each value, itself and the values of all objects inside it."""
    family = {value: {value} for value in values}
    for value in part_of:
        path = [value]
        while path[-1] in part_of:
            path.append(part_of[path[-1]])
            if len(set(path)) < len(path):
                raise ValueError(f"part_of runs in a circle: {' > '.join(map(str, path))}")
        unknown = [v for v in path if v not in family]
        if unknown:
            raise ValueError(f"part_of speaks of values {unknown}, the objects are {sorted(family)}")
        for outer in path[1:]:
            family[outer].add(value)
    return family


def _object(
    label_map: NDArray[np.integer], windows: Sequence[Window | None], values: set[int]
) -> tuple[tuple[int, int, int], BoolArray] | None:
    """Start and tight crop of the voxels that have one of ``values``; ``None`` if there are none."""
    parts = [window for value in values if (window := windows[value - 1]) is not None]
    if not parts:
        return None
    start = [min(part[axis].start for part in parts) for axis in range(3)]
    stop = [max(part[axis].stop for part in parts) for axis in range(3)]
    crop = label_map[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    mask = np.isin(crop, sorted(values)) if len(values) > 1 else crop == next(iter(values))
    return tight_crop(mask, start)

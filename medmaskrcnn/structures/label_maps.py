"""Label maps, which assign each voxel to one object or class, and their conversion to instances and back.

An *instance* map has one value per object; a *semantic* map has one value per class, and the objects of a class are its
connected components. Zero is background. A label map assigns each voxel to only one object, yet a tumour is part of its
liver: ``part_of`` states this, and the liver's mask then contains the tumour's voxels too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.overlap import voxel_counts

MapKind = Literal["instance", "semantic"]

NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
"""Voxels that touch, even at a corner only, are connected: 26 neighbours in a volume, 8 in an image."""

_LARGEST_LISTED = 1_000_000  # find_objects keeps a list entry for each value up to the largest


def instances_of_label_map(
    label_map: NDArray[np.integer],
    grid: Grid,
    classes: Mapping[int, str],
    *,
    kind: MapKind = "instance",
    part_of: Mapping[int, int] | None = None,
    class_names: Sequence[str] | None = None,
) -> Instances:
    """Convert a label map to instances with score 1 and their tight boxes as detection boxes.

    Args:
        label_map: ``(D, H, W)`` integers on ``grid``; voxels whose value is not in ``classes`` are background.
        grid: The scan's grid.
        classes: Class name of each voxel value.
        kind: ``"instance"``: each value is one object; ``"semantic"``: each connected component of a value is one.
        part_of: Maps the voxel value of an object to that of the object in which it lies, whose mask then contains it
            too; this may be nested.
        class_names: Order of the classes; by default the order in which ``classes`` first names them.

    Returns:
        The objects in the order of ``classes``; those without a voxel in this map are left out.

    Raises:
        ValueError: if shapes disagree, a value is below 1, a class is not among ``class_names``, or ``part_of`` names
            an unknown value or is circular.
    """
    names = tuple(class_names) if class_names is not None else tuple(dict.fromkeys(classes.values()))
    if label_map.shape != grid.shape:
        raise ValueError(f"the label map must have the grid's shape {grid.shape}, got {label_map.shape}")
    unknown = sorted(set(classes.values()) - set(names))
    if unknown:
        raise ValueError(f"classes {unknown} are not among {names}")
    found = masks_of_labels(label_map, classes, part_of=part_of)
    objects = [
        (names.index(classes[value]), part)
        for value, mask in found.items()
        for part in (connected_components(mask) if kind == "semantic" else [mask])
    ]
    return Instances.from_masks(grid, names, [label for label, _ in objects], [mask for _, mask in objects])


def masks_of_labels(
    label_map: NDArray[np.integer], values: Iterable[int] | None = None, *, part_of: Mapping[int, int] | None = None
) -> dict[int, Mask]:
    """Tight mask of each value of a label map ``(D, H, W)``, in the order of ``values``.

    Args:
        label_map: Integers.
        values: Values wanted, each 1 or more; by default all above 0, ascending. Those without a voxel are left out.
        part_of: As for :func:`instances_of_label_map`.

    Raises:
        ValueError: if the map holds no integers, a value is below 1, or ``part_of`` names a value that is not among
            ``values`` or is circular.
    """
    windows = label_windows(label_map)
    wanted = list(windows) if values is None else list(values)
    if any(value < 1 for value in wanted):
        raise ValueError(f"voxel values of objects must be 1 or more, got {[v for v in wanted if v < 1]}")
    own = {
        value: Mask([part.start for part in windows[value]], np.ascontiguousarray(label_map[windows[value]] == value))
        for value in wanted
        if value in windows
    }
    if not part_of:
        return own
    families = _families(wanted, part_of)
    whole = {value: Mask.empty().union(*(own[v] for v in families[value] if v in own)) for value in wanted}
    return {value: mask for value, mask in whole.items() if not mask.is_empty}


def label_windows(label_map: NDArray[np.integer]) -> dict[int, tuple[slice, slice, slice]]:
    """Each value above 0 of a label map ``(D, H, W)``, ascending, and the window of its voxels.

    Raises:
        ValueError: if the map holds no integers.
    """
    if not np.issubdtype(label_map.dtype, np.integer):
        raise ValueError(f"a label map must hold integers, got {label_map.dtype}")
    largest = max(0, int(label_map.max(initial=0)))
    if largest <= _LARGEST_LISTED:
        values, ranks = np.arange(1, largest + 1), label_map
    else:
        values = np.unique(label_map)
        values = values[values > 0]
        ranks = np.searchsorted(values, label_map, side="right").astype(np.int32)
    windows = ndimage.find_objects(ranks, max_label=len(values))
    return {value: window for value, window in zip(values.tolist(), windows, strict=True) if window is not None}


def connected_components(mask: Mask) -> list[Mask]:
    """The connected components of a mask, each tight, in the order of their first voxels."""
    parts, _ = ndimage.label(mask.array, structure=NEIGHBOURS)
    return [part.shifted(mask.start) for part in masks_of_labels(parts).values()]


def paint_labels(
    masks: Sequence[Mask], shape: tuple[int, int, int], dtype: DTypeLike, *, values: Sequence[int] | None = None
) -> NDArray[Any]:
    """Make a label map of masks: where they overlap, a later one covers those before it.

    Args:
        masks: Masks inside the grid.
        shape: Shape of the grid: D, H, W.
        dtype: Data type of the map.
        values: Value of each mask; by default 1, 2, ...

    Returns:
        ``(D, H, W)``, 0 outside of all masks.
    """
    painted = np.zeros(shape, dtype)
    for value, mask in zip(values if values is not None else range(1, len(masks) + 1), masks, strict=True):
        painted[mask.window][mask.array] = value
    return painted


def label_map(instances: Instances) -> NDArray[np.integer]:
    """Paint instances into one array: the i-th gets the value i + 1, smaller ones overwrite larger ones.

    Returns:
        ``(D, H, W)`` uint16, or int32 where there are more than 65,535 instances; 0 is background.
    """
    dtype = np.uint16 if len(instances) <= np.iinfo(np.uint16).max else np.int32
    order = np.argsort(-voxel_counts(instances), kind="stable")
    return paint_labels([instances.masks[i] for i in order], instances.grid.shape, dtype, values=(order + 1).tolist())


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

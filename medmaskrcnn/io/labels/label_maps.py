"""Label maps (NIfTI, NRRD, MetaImage, PNG, TIFF) as instances on a scan's grid.

An *instance* map gives each object a number of its own; a *semantic* map gives each class a number, and objects of a
class are its connected parts. Zero is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_grids import paste, same_voxels
from medmaskrcnn.io.labels.label_set import LabelledMask, LabelSet, collect
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import tight_crop
from medmaskrcnn.structures.volume import Volume

MapKind = Literal["instance", "semantic"]

MAX_LABELS = 65_536
"""More different values than this are a scan, not labels."""


def labels_of_map(
    path: Path, label_map: Volume, scan: Volume, *, names: Mapping[int, str] | None, kind: MapKind
) -> LabelSet:
    """Turn a label map into instances of a scan.

    Args:
        path: The map's file, for errors.
        label_map: The map as :func:`~medmaskrcnn.io.read.read_volume` gives it: one channel of whole numbers.
        scan: The scan that it labels.
        names: Class names by value; values that it lacks are background. Without it a class is ``"label 3"``.
        kind: See the module.

    Raises:
        ReadError: if it has several channels, fractions, negative values, too many labels, or, as a picture, another
            size than the scan.
    """
    values = _whole_numbers(path, label_map)
    _check_sizes(path, label_map.grid, scan.grid)
    notes = []
    if not same_voxels(label_map.grid, scan.grid):
        notes.append("The label map lies on a grid of its own; each voxel takes the label of the nearest voxel.")
    found = []
    for value, window in _windows(path, values):
        name = f"label {value}" if names is None else names.get(value)
        if name is None:
            notes.append(f"Value {value} has no class name; it is taken as background.")
            continue
        mask = values[window] == value
        start = [w.start for w in window]
        if kind == "instance":
            found.append(_moved(name, mask, start, label_map.grid, scan.grid))
            continue
        parts, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        for number, part in enumerate(ndimage.find_objects(parts), start=1):
            begin = [a + s.start for a, s in zip(start, part, strict=True)]
            found.append(_moved(name, parts[part] == number, begin, label_map.grid, scan.grid))
    if any(not one.mask.size for one in found):
        notes.append("Labels that lie outside of the scan, or between its voxels, have empty masks.")
    return collect(scan.grid, found, notes)


def _whole_numbers(path: Path, label_map: Volume) -> NDArray[Any]:
    """The map's one channel as integers."""
    array = label_map.array
    if array.shape[0] != 1:
        raise ReadError(f"{path} has {array.shape[0]} channels; a label map has one. Save each label map by itself")
    values = array[0]
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and np.abs(values).max() < 2**31 and (values == np.rint(values)).all()
        if not whole:
            raise ReadError(f"{path} holds fractions; a label map holds whole numbers. Is it a scan?")
        values = values.astype(np.int32)
    if values.min() < 0:
        raise ReadError(f"{path} holds the value {values.min()}; labels are not negative. Is it a scan?")
    return values


def _check_sizes(path: Path, labels: Grid, scan: Grid) -> None:
    """A grid without millimetres can be matched by its size alone."""
    if not (labels.spacing_known and scan.spacing_known) and labels.shape != scan.shape:
        raise ReadError(
            f"{path} is {labels.shape} voxels (D, H, W), the scan {scan.shape}, and one of them does not tell where "
            f"it lies. Give a label map of the scan's size"
        )


def _windows(path: Path, values: NDArray[Any]) -> list[tuple[int, tuple[slice, slice, slice]]]:
    """Each value that occurs, by rising value, and the box of its voxels."""
    if values.dtype.itemsize <= 2:  # counting is much faster than sorting, and labels are mostly small
        present = np.flatnonzero(np.bincount(values.ravel(), minlength=1))
    else:
        present = np.unique(values)
    present = present[present != 0]
    if len(present) > MAX_LABELS:
        raise ReadError(f"{path} holds {len(present)} different values, more than {MAX_LABELS} labels. Is it a scan?")
    if not len(present):
        return []
    ranks = np.searchsorted(present, values) + 1
    ranks[values == 0] = 0
    boxes = ndimage.find_objects(ranks.astype(np.int32))
    return [(int(v), box) for v, box in zip(present, boxes, strict=True)]


def _moved(name: str, mask: NDArray[np.bool_], start: list[int], source: Grid, target: Grid) -> LabelledMask:
    first, crop = tight_crop(*paste(mask, start, source, target))
    return LabelledMask(name, first, crop)

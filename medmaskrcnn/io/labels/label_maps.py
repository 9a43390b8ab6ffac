"""Label maps (NIfTI, NRRD, MetaImage, PNG, TIFF) as instances on a scan's grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_grids import paste, same_voxels
from medmaskrcnn.io.labels.label_set import LabelSet
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import MapKind, instances_of_label_map, label_windows
from medmaskrcnn.structures.volume import Volume

LARGEST_VALUE = 1_000_000
"""Largest value in labels for training; larger ones are hashes or colours, not object numbers."""

_LARGEST = 2**31 - 1
_OFF_WHOLE = 1e-4

MAX_LABELS = 65_536
"""More different values than this are a scan, not labels."""


def labels_of_map(
    path: Path,
    label_map: Volume,
    scan: Volume,
    *,
    names: Mapping[int, str] | None,
    kind: MapKind,
    own_names: Mapping[int, str] | None = None,
) -> LabelSet:
    """Turn a label map into instances of a scan.

    Args:
        path: The map's file, for errors.
        label_map: The map as :func:`~medmaskrcnn.io.read.read_volume` gives it: one channel of whole numbers.
        scan: The scan that it labels.
        names: Class names by value; values that it lacks are background.
        own_names: Class names that the file itself gives, used without ``names``. A value that has no name in it is
            the class ``"label 3"``.
        kind: See :mod:`medmaskrcnn.structures.label_maps`.

    Raises:
        ReadError: if it has several channels, fractions, negative values, too many labels, or, as a picture, another
            size than the scan.
    """
    values = _integers(path, label_map)
    check_sizes(path, label_map.grid, scan.grid)
    notes = []
    if not same_voxels(label_map.grid, scan.grid):
        notes.append("The label map lies on a grid of its own; each voxel takes the label of the nearest voxel.")
    present = list(label_windows(values))
    if len(present) > MAX_LABELS:
        raise ReadError(f"{path} holds {len(present)} different values, more than {MAX_LABELS} labels. Is it a scan?")
    given = own_names or {}
    classes = {v: given.get(v, f"label {v}") if names is None else names.get(v) for v in present}
    unnamed = [value for value, name in classes.items() if name is None]
    notes += [f"Value {value} has no class name; it is taken as background." for value in unnamed]
    named = {value: name for value, name in classes.items() if name is not None}
    found = instances_of_label_map(values, label_map.grid, named, kind=kind)
    masks = [paste(mask, label_map.grid, scan.grid) for mask in found.masks]
    if any(mask.is_empty for mask in masks):
        notes.append("Labels that lie outside of the scan, or between its voxels, have empty masks.")
    return LabelSet(Instances.from_masks(scan.grid, found.class_names, found.labels, masks), tuple(notes))


def _integers(path: Path, label_map: Volume) -> NDArray[np.integer]:
    """The map's one channel as integers."""
    array = label_map.array
    if array.shape[0] != 1:
        raise ReadError(f"{path} has {array.shape[0]} channels; a label map has one. Save each label map by itself")
    values = whole_numbers(array[0], largest=_LARGEST)
    if values is None and (lowest := array.min()) < 0:
        raise ReadError(f"{path} holds the value {lowest}; labels are not negative. Is it a scan?")
    if values is None:
        raise ReadError(f"{path} holds fractions; a label map holds whole numbers. Is it a scan?")
    return values


def whole_numbers(array: NDArray[Any], *, largest: int = LARGEST_VALUE) -> NDArray[np.integer] | None:
    """A label map of any shape as integers of at most 32 bits; ``None`` unless all are whole, 0 to ``largest``.

    Floats count as whole within 1e-4: some label maps were stored as scaled floats.
    """
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        return None
    if array.size == 0 or not (array.min() >= -_OFF_WHOLE and array.max() <= largest):
        return None  # NaN fails here too
    if np.issubdtype(array.dtype, np.integer):
        return array if array.dtype.itemsize <= 4 else array.astype(np.int32)
    whole = np.rint(array)
    return whole.astype(np.int32) if np.abs(array - whole).max() <= _OFF_WHOLE else None


def check_sizes(path: Path, labels: Grid, scan: Grid) -> None:
    """A grid without millimetres can be matched by its size alone."""
    if not (labels.spacing_known and scan.spacing_known) and labels.shape != scan.shape:
        raise ReadError(
            f"{path} is {labels.shape} voxels (D, H, W), the scan {scan.shape}, and one of them does not tell where "
            f"it lies. Give a label map of the scan's size"
        )

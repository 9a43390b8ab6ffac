"""Reads a brush stroke from napari's undo history: the window of changed voxels and their previous values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, ...]


def changed_window(atoms: Sequence[Any], shape: Sequence[int]) -> tuple[Window, set[int]]:
    """The window around all changes of one stroke, and the previous values in it.

    Args:
        atoms: The value of a Labels layer's ``paint`` event. napari writes each change as (indices, old values, new
            value) or, from 0.9 on, as an object with ``slice_key`` and ``old_values``.
        shape: Shape of the layer's data.
    """
    windows: list[Window] = []
    old: set[int] = set()
    for atom in atoms:
        key = getattr(atom, "slice_key", None)
        if key is None:
            indices, values = atom[0], atom[1]
            key = tuple(slice(int(np.min(i)), int(np.max(i)) + 1) for i in indices)
        else:
            values = atom.old_values
        windows.append(tuple(_bounded(part, n) for part, n in zip(key, shape, strict=True)))
        old |= {int(v) for v in np.unique(values)}
    low = [min(w[axis].start for w in windows) for axis in range(len(shape))]
    high = [max(w[axis].stop for w in windows) for axis in range(len(shape))]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), old


def apply_changes(atoms: Sequence[Any], data: NDArray[Any]) -> None:
    """Write a stroke's changes into an array ``(D, H, W)``, in their order.

    napari reports changes of some tools (polygon, single clicks) before writing them; applying them twice is harmless.
    """
    for atom in atoms:
        key = getattr(atom, "slice_key", None)
        if key is None:
            data[atom[0]] = atom[2]
        elif atom.mask is None:
            data[key] = atom.new_value
        else:
            region = data[key]
            region[atom.mask] = atom.new_value
            data[key] = region


def windows_meet(one: Window, other: Window) -> bool:
    """Whether two windows overlap."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _bounded(part: slice | int, n: int) -> slice:
    if isinstance(part, slice):
        start, stop, _ = part.indices(n)
        return slice(start, stop)
    return slice(int(part), int(part) + 1)

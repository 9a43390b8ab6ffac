"""Rescaling of stored values to real-world values, which keeps integers wherever that is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTEGER_TYPES: tuple[type[np.signedinteger[Any]] | type[np.unsignedinteger[Any]], ...] = (
    np.int16,
    np.uint16,
    np.int32,
    np.int64,
)
"""In order of preference: int16 holds every CT."""

_PIECE = 1 << 22  # voxels


def is_whole(value: float) -> bool:
    """True for 1.0 and -1024.0, False for 0.5."""
    return float(value).is_integer()


def smallest_integer_type(low: int, high: int) -> np.dtype[Any]:
    """The first of :data:`INTEGER_TYPES` that holds ``low`` to ``high``; float64 beyond int64."""
    for candidate in INTEGER_TYPES:
        limits = np.iinfo(candidate)
        if limits.min <= low and high <= limits.max:
            return np.dtype(candidate)
    return np.dtype(np.float64)


def float_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    """float32 where it holds every stored value exactly, else float64."""
    return np.dtype(np.float64 if stored.itemsize > 2 and stored != np.float32 else np.float32)


def rescale(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """``stored * slope + intercept``.

    Identity keeps the stored type; whole numbers on integers give the smallest integer type that holds the
    values; anything else float32, or float64 where the stored values need it. Extended precision becomes float64,
    half precision float32.
    """
    if stored.dtype.kind == "f" and stored.dtype.itemsize not in (4, 8):
        stored = stored.astype(np.float64 if stored.dtype.itemsize > 8 else np.float32)
    if slope == 1 and intercept == 0:
        return stored
    if stored.dtype.kind in "iu" and is_whole(slope) and is_whole(intercept):
        ends = [int(v) * int(slope) + int(intercept) for v in (stored.min(), stored.max())]
        target = smallest_integer_type(min(ends), max(ends))
        if target.kind != "f":
            wide = np.dtype(np.int64 if target.itemsize > 2 or stored.dtype.itemsize > 2 else np.int32)
            return _in_pieces(stored, wide, int(slope), int(intercept), target)
    return _in_pieces(stored, np.dtype(np.float64), slope, intercept, float_type(stored.dtype))


def _in_pieces(
    stored: NDArray[Any], wide: np.dtype[Any], slope: float, intercept: float, target: np.dtype[Any]
) -> NDArray[Any]:
    """Computed in a wide type, a piece at a time: the whole volume in it would be up to eight times as large."""
    values = np.empty(stored.shape, target)
    source, goal = stored.reshape(-1), values.reshape(-1)
    for start in range(0, source.size, _PIECE):
        piece = slice(start, start + _PIECE)
        goal[piece] = (source[piece].astype(wide) * slope + intercept).astype(target)
    return values


def rescale_slices(stored: NDArray[Any], scalings: Sequence[tuple[float, float]]) -> NDArray[Any]:
    """Each slice of ``(N, ...)`` times its own slope plus its own intercept, with minimal memory.

    If the result has a type of the same size it is computed in place; otherwise one slice at a time into a second
    array.

    Args:
        stored: Stored values, which may be overwritten.
        scalings: Slope and intercept of each slice.

    Returns:
        Values of the stored type if nothing is scaled, of the smallest integer type if integers are scaled by whole
        numbers, else float32 (float64 if the stored values need it).
    """
    if all(scaling == (1, 0) for scaling in scalings):
        return stored
    if stored.dtype.kind not in "iu" or not all(is_whole(value) for scaling in scalings for value in scaling):
        target = float_type(stored.dtype)
    else:
        ends = [
            int(value) * int(slope) + int(intercept)
            for plane, (slope, intercept) in zip(stored, scalings, strict=True)
            for value in (plane.min(), plane.max())
        ]
        target = smallest_integer_type(min(ends), max(ends))
    both_whole = target.kind in "iu" and stored.dtype.kind in "iu"
    if target == stored.dtype or (both_whole and target.itemsize == stored.dtype.itemsize):
        return _rescale_in_place(stored, scalings, target)
    values = np.empty(stored.shape, target)
    for i, (slope, intercept) in enumerate(scalings):
        values[i] = rescale(stored[i], slope, intercept)
    return values


def _rescale_in_place(
    stored: NDArray[Any], scalings: Sequence[tuple[float, float]], target: np.dtype[Any]
) -> NDArray[Any]:
    """Whole numbers within one size: sums and products that wrap around are exact if the results fit."""
    if target.kind == "f":
        for plane, (slope, intercept) in zip(stored, scalings, strict=True):
            plane[...] = rescale(plane, slope, intercept)
        return stored
    unsigned = stored.view(f"u{target.itemsize}")
    modulus = 1 << (8 * target.itemsize)
    for plane, (slope, intercept) in zip(unsigned, scalings, strict=True):
        if slope != 1:
            plane *= plane.dtype.type(int(slope) % modulus)
        plane += plane.dtype.type(int(intercept) % modulus)
    return stored.view(target)

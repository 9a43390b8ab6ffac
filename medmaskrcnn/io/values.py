"""Stored numbers to real-world values, integers kept wherever that is exact."""

from __future__ import annotations

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
            wide = stored.astype(np.int64 if target.itemsize > 2 or stored.dtype.itemsize > 2 else np.int32)
            return np.asarray((wide * int(slope) + int(intercept)).astype(target))
    scaled = stored.astype(np.float64) * slope + intercept
    return np.asarray(scaled.astype(float_type(stored.dtype)))

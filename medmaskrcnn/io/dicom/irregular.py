"""Resampling of frames with uneven steps to an even grid, at the user's request.

Slices that are missing, duplicated or unevenly spaced have no affine. The resampled grid runs from the first to the
last of them with their usual step, and its slices are interpolated from their neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import MIN_STEP_MM, check_straight, distances_mm, order_along_normal, stack_affine
from medmaskrcnn.io.dicom.stack import DicomStack
from medmaskrcnn.structures.grid import FloatArray, Grid

_MAX_SLICES = 20_000
"""A larger distance between the first and the last plane means that positions are wrong."""


def arrange_resampled(stack: DicomStack) -> DicomStack:
    """Put frames on an even grid with their usual step (the median) from the first to the last of them.

    Args:
        stack: Frames at two or more positions, all of one orientation; of frames at one position the first of the
            series is used.

    Raises:
        ReadError: if the frames are shifted sideways unevenly, or all are at one position.
    """
    numbered = sorted(
        range(len(stack.frames)), key=lambda i: (stack.frames[i].header.instance_number or 0, stack.frames[i].index)
    )
    frames = [stack.frames[i] for i in numbered]
    along = distances_mm(frames)
    order = order_along_normal(frames)
    kept = [order[0]]
    for i in order[1:]:
        if along[i] - along[kept[-1]] >= MIN_STEP_MM:
            kept.append(i)
    if len(kept) < 2:
        raise ReadError(f"all {len(frames)} slices lie at the same place {along[0]:.2f} mm; that is no volume")
    check_straight([frames[i] for i in kept])
    lower, weight, step_mm = _even_places(along[kept])
    notes = [
        f"The slices are irregular; {len(kept)} of them were resampled to {len(lower)} even ones, {step_mm:.3f} mm "
        f"apart, by linear interpolation as asked."
    ]
    if len(kept) < len(frames):
        notes.append(f"{len(frames) - len(kept)} slices lie where another lies; the first of each place is used.")
    affine = stack_affine(frames[kept[0]], frames[kept[-1]], len(lower) - 1)
    return replace(
        stack,
        order=tuple(numbered[i] for i in kept),
        grid=Grid((len(lower), stack.header.rows, stack.header.columns), affine),
        step_from="positions",
        lower=lower,
        weight=weight,
        notes=(*stack.notes, *notes),
    )


def _even_places(places_mm: FloatArray) -> tuple[NDArray[np.int64], FloatArray, float]:
    """For each even slice the index of the position below it and the weight of the next one; and the step in mm."""
    usual = float(np.median(np.diff(places_mm)))
    extent = float(places_mm[-1] - places_mm[0])
    n_slices = round(extent / usual) + 1
    if n_slices > _MAX_SLICES:
        raise ReadError(f"slices reach over {extent:.0f} mm in steps of {usual:.3f} mm; the positions are wrong")
    goal = np.linspace(0.0, extent, max(n_slices, 2))
    last = len(places_mm) - 2
    lower = np.clip(np.searchsorted(places_mm - places_mm[0], goal + MIN_STEP_MM, side="right") - 1, 0, last)
    gap = np.diff(places_mm)[lower]
    weight = np.clip((goal - (places_mm[lower] - places_mm[0])) / gap, 0.0, 1.0)
    weight[weight * gap < MIN_STEP_MM] = 0.0
    return lower.astype(np.int64), weight, float(goal[1])


def interpolate(values: NDArray[Any], lower: NDArray[np.int64], weight: FloatArray) -> NDArray[Any]:
    """Interpolate ``(N, ...)`` slices to those of a resampled stack; integers are rounded and keep their type."""
    result = np.empty((len(lower), *values.shape[1:]), values.dtype)
    for i, (below, share) in enumerate(zip(lower, weight, strict=True)):
        if share == 0:
            result[i] = values[below]
        elif share == 1:
            result[i] = values[below + 1]
        else:
            mixed = (1 - share) * values[below] + share * values[below + 1]
            result[i] = np.rint(mixed) if values.dtype.kind in "iu" else mixed
    return result

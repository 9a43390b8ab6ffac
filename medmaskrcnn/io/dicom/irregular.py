"""Planes without an even step, and the even grid that they can be resampled to when the user asks for it.

Slices that are missing, doubled or unevenly spaced have no affine. Between the first and the last of them there is
one, with the usual step; :class:`IrregularStack` says which planes its slices are to be interpolated from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import MIN_STEP_MM, Plane, distances_mm, refuse_crooked, stack_affine
from medmaskrcnn.structures.grid import FloatArray

_MAX_SLICES = 20_000
"""More than this between the first and the last plane is no scan, but positions that are wrong."""


@dataclass(frozen=True, eq=False)
class IrregularStack:
    """An even grid through uneven planes.

    Attributes:
        order: Indices into the given planes, sorted along the normal; of planes at one place the first.
        affine_vox_to_ras: ``(4, 4)`` of the even grid, voxel index to mm.
        below: ``(D,)``, for each slice of the even grid the position in :attr:`order` of the plane under it.
        weight: ``(D,)``, the share of the next plane in it, in [0, 1).
        notes: What the user should know.
    """

    order: tuple[int, ...]
    affine_vox_to_ras: FloatArray
    below: NDArray[np.int64]
    weight: FloatArray
    notes: tuple[str, ...]


def even_stack(planes: Sequence[Plane], *, names: Sequence[str]) -> IrregularStack:
    """The even grid with the planes' usual step (the median) from the first to the last plane.

    Args:
        planes: At least two places, all turned alike.
        names: What to call each plane in errors.

    Raises:
        ReadError: if the planes are shifted sideways unevenly, or all lie at one place.
    """
    along = distances_mm(planes)
    order = [int(i) for i in np.argsort(along, kind="stable")]
    kept = [order[0]]
    for i in order[1:]:
        if along[i] - along[kept[-1]] >= MIN_STEP_MM:
            kept.append(i)
    if len(kept) < 2:
        raise ReadError(f"all {len(planes)} slices lie at the same place {along[0]:.2f} mm; that is no volume")
    places = along[kept]
    refuse_crooked([planes[i] for i in kept], [names[i] for i in kept])
    usual = float(np.median(np.diff(places)))
    extent = float(places[-1] - places[0])
    n_slices = round(extent / usual) + 1
    if n_slices > _MAX_SLICES:
        raise ReadError(f"slices reach over {extent:.0f} mm in steps of {usual:.3f} mm; the positions are wrong")
    goal = np.linspace(0.0, extent, max(n_slices, 2))
    below = np.clip(np.searchsorted(places - places[0], goal + MIN_STEP_MM, side="right") - 1, 0, len(kept) - 2)
    gap = np.diff(places)[below]
    weight = np.clip((goal - (places[below] - places[0])) / gap, 0.0, 1.0)
    weight[weight * gap < MIN_STEP_MM] = 0.0
    step = goal[1]
    notes = [
        f"The slices are irregular; {len(kept)} of them were resampled to {len(goal)} even ones, {step:.3f} mm apart, "
        f"by linear interpolation as asked."
    ]
    if len(kept) < len(planes):
        notes.append(f"{len(planes) - len(kept)} slices lie where another lies; the first of each place is used.")
    affine = stack_affine(planes[kept[0]], planes[kept[-1]], len(goal) - 1)
    return IrregularStack(tuple(kept), affine, below.astype(np.int64), weight, tuple(notes))

"""Size of objects, and the limits of small, medium and large ones.

In pictures COCO's areas apply: 32 x 32 and 96 x 96 pixels. In scans the measure is the diameter in mm of the ball of
equal volume: below 10 mm a lesion is not measurable on CT (RECIST 1.1), above 30 mm a nodule is called a mass
(Fleischner Society glossary).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.mask import BoolArray

ALL = "all"


@dataclass(frozen=True)
class SizeRanges:
    """Names and limits of size ranges; a size on a limit belongs to both ranges, as in COCO.

    Attributes:
        measure: The measure that is compared with the limits, with its unit.
        names: Names of the ranges; the first holds every object.
        low, high: Limits of each range, both included.
        diameter: Compare the diameter of the ball of equal volume rather than the size itself.
    """

    measure: str
    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    diameter: bool

    def outside(self, sizes: FloatArray) -> BoolArray:
        """``(N, ranges)`` boolean: which sizes lie outside which range. NaN (unknown) lies only in the first."""
        outside = ~((sizes[:, None] >= np.array(self.low)) & (sizes[:, None] <= np.array(self.high)))
        outside[:, 0] = False
        return np.asarray(outside)

    def measured(self, n_voxels: FloatArray, grid: Grid) -> FloatArray:
        """``(N,)`` float64: objects of ``(N,)`` voxels in the unit of the limits; NaN if that is mm and unknown."""
        if not self.diameter:
            return n_voxels.astype(np.float64)
        if not grid.spacing_known:
            return np.full(len(n_voxels), np.nan)
        return equivalent_diameter(n_voxels, grid.voxel_volume_unit3)


COCO_AREAS = SizeRanges(
    measure="area in pixels",
    names=(ALL, "small", "medium", "large"),
    low=(0.0, 0.0, 32.0**2, 96.0**2),
    high=(1e10, 32.0**2, 96.0**2, 1e10),
    diameter=False,
)
"""Size ranges of pictures. COCO's upper limit is 1e5 squared, larger than any picture."""

BALL_DIAMETERS_MM = SizeRanges(
    measure="diameter of the ball of equal volume in mm",
    names=(ALL, "small", "medium", "large"),
    low=(0.0, 0.0, 10.0, 30.0),
    high=(math.inf, 10.0, 30.0, math.inf),
    diameter=True,
)
"""Size ranges of scans. An object of unknown size in mm is only in the first range (all)."""


def size_ranges_for(grids: Iterable[Grid]) -> SizeRanges:
    """COCO's areas if every grid is a single picture, else diameters in mm."""
    return COCO_AREAS if all(grid.shape[0] == 1 for grid in grids) else BALL_DIAMETERS_MM


def equivalent_diameter(n_voxels: FloatArray, voxel_mm3: float) -> FloatArray:
    """Diameter ``(N,)`` in mm of the ball that has the volume of ``n_voxels`` ``(N,)`` of ``voxel_mm3``."""
    return np.asarray(np.cbrt(6 * np.asarray(n_voxels, np.float64) * voxel_mm3 / math.pi))

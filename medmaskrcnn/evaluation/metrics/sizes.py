"""How large an object is, and which objects count as small, medium and large.

In pictures COCO's areas hold: 32 x 32 and 96 x 96 pixels. In scans it is the diameter of the ball of equal volume in
mm: below 10 mm a lesion is not measurable on CT (RECIST 1.1), from 30 mm on a nodule is called a mass (Fleischner
Society glossary).
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
    """Names and limits of sizes; a size on a limit belongs to both its neighbours, as in COCO.

    Attributes:
        measure: What is compared with the limits, with its unit.
        names: Of the ranges; the first holds every object.
        low, high: Limits of each, both included.
        diameter: Compare the diameter of the ball of equal volume rather than the size itself.
    """

    measure: str
    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    diameter: bool

    def outside(self, sizes: FloatArray) -> BoolArray:
        """``(N, ranges)`` boolean: which sizes lie outside which range. NaN, unknown, lies in the first alone."""
        outside = ~((sizes[:, None] >= np.array(self.low)) & (sizes[:, None] <= np.array(self.high)))
        outside[:, 0] = False
        return np.asarray(outside)

    def measured(self, n_voxels: FloatArray, grid: Grid) -> FloatArray:
        """``(N,)`` float64: objects of ``(N,)`` voxels in the unit of the limits; NaN where the scan has no mm."""
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
"""Of pictures. COCO ends at 1e5 squared, where no picture comes."""

BALL_DIAMETERS_MM = SizeRanges(
    measure="diameter of the ball of equal volume in mm",
    names=(ALL, "small", "medium", "large"),
    low=(0.0, 0.0, 10.0, 30.0),
    high=(math.inf, 10.0, 30.0, math.inf),
    diameter=True,
)
"""Of scans. An object whose size in mm is unknown is in none of these ranges but counts among all."""


def size_ranges_for(grids: Iterable[Grid]) -> SizeRanges:
    """COCO's areas if every grid is a single picture, else diameters in mm."""
    return COCO_AREAS if all(grid.shape[0] == 1 for grid in grids) else BALL_DIAMETERS_MM


def equivalent_diameter(n_voxels: FloatArray, voxel_mm3: float) -> FloatArray:
    """Diameter ``(N,)`` in mm of the ball that has the volume of ``n_voxels`` ``(N,)`` of ``voxel_mm3``."""
    return np.asarray(np.cbrt(6 * np.asarray(n_voxels, np.float64) * voxel_mm3 / math.pi))

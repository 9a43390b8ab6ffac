"""Surface distances of two objects: 95th percentile of the Hausdorff distance, normalised surface distance.

A surface is the set of voxels of a mask that share a face with a voxel outside it (the edge of the scan counts as
outside), located at their centres: the definition of MONAI and most challenges; surface elements are not weighted by
area. Distances to the nearest voxel of the other surface are in mm, so oblique and sheared grids are handled correctly.

HD95 is the larger of the two directions' 95th percentiles (Huttenlocher et al. 1993, as in Metrics Reloaded, Maier-Hein
et al. 2024). The normalised surface distance is the share of both surfaces that lies within a tolerance of the other
(Nikolov et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import Instances

TOLERANCE = 2.0
"""Default tolerance, mm."""


@dataclass(frozen=True)
class SurfaceAgreement:
    """Agreement of two surfaces.

    Attributes:
        hd95: 95th percentile of the Hausdorff distance.
        nsd: Share of both surfaces within the tolerance of the other, 0..1.
        unit: Unit of ``hd95`` and the tolerance: ``"mm"``, or ``"px"`` if the scan's spacing is unknown.
    """

    hd95: float
    nsd: float
    unit: str


def surface_agreement(
    predicted: Instances, i: int, reference: Instances, j: int, *, tolerance: float = TOLERANCE
) -> SurfaceAgreement | None:
    """Compare the surface of the ``i``-th predicted object with that of the ``j``-th reference.

    Args:
        predicted: Instances of a scan.
        i: Index into them.
        reference: Instances on the same grid.
        j: Index into those.
        tolerance: Distance within which surfaces agree; mm, or pixels if the scan's spacing is unknown.

    Returns:
        The agreement; ``None`` if one of the two has no voxel.

    Raises:
        ValueError: if the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"the tolerance must not be negative, got {tolerance}")
    if predicted.masks[i].is_empty or reference.masks[j].is_empty:
        return None
    first, second = surface_points(predicted, i), surface_points(reference, j)
    there, _ = cKDTree(second).query(first)
    back, _ = cKDTree(first).query(second)
    within = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    return SurfaceAgreement(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        nsd=within / (len(first) + len(second)),
        unit="mm" if predicted.grid.spacing_known else "px",
    )


def surface_points(instances: Instances, i: int) -> FloatArray:
    """``(P, 3)`` world positions (mm, or pixels) of the centres of an object's surface voxels.

    In a single picture the surface is the outline: faces towards the front and back of the picture do not count.
    """
    mask = instances.masks[i]
    faces = ndimage.generate_binary_structure(3, 1)
    if instances.grid.shape[0] == 1:
        faces[[0, 2]] = False
    inside = ndimage.binary_erosion(mask.array, faces)
    index = np.argwhere(mask.array & ~inside) + mask.start
    return instances.grid.index_to_ras(index)

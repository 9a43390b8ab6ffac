"""Restricts detection to a region of the scan."""

from __future__ import annotations

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.inference.prepare import NetworkRegion, Preprocessed
from medmaskrcnn.settings import Region
from medmaskrcnn.structures.instances import Instances

REGION_MARGIN = 32
"""Network voxels that are searched around a region: one cell of the coarsest pyramid level."""


def window_of(region: Region, prepared: Preprocessed, scan_shape: tuple[int, int, int]) -> NetworkRegion:
    """The network voxels to search for a region of the scan, with a margin.

    Raises:
        InvalidOptionError: if the region does not lie in the scan.
    """
    for a, b, n in zip(*region, scan_shape, strict=True):
        if not 0 <= a < b <= n:
            raise InvalidOptionError("region", f"region must lie in the scan of shape {scan_shape}, got {region}")
    return prepared.window(prepared.box_in_turned([*region[0], *region[1]]), margin=REGION_MARGIN)


def in_region(found: Instances, region: Region) -> Instances:
    """The instances that have a voxel in a region of the scan."""
    return found.select([i for i, mask in enumerate(found.masks) if not mask.cropped(*region).is_empty])

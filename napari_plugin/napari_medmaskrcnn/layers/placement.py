"""Where a scan lies in napari's world: the axes of its array as shown, and the whole transform of its image layer.

Results, boxes and drawings of a scan take both from the scan's layer, so that they lie on it however the layer was
moved, turned, sheared or scaled. The scan's own grid, and what is written to files, is not affected by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from napari_medmaskrcnn.layers.display_frame import DisplayFrame, display_frame
from napari_medmaskrcnn.layers.image_layers import shown_axes, world_settings

TRANSFORMS = ("scale", "translate", "rotate", "shear", "affine", "units")
"""A layer's events that tell that it moved."""


@dataclass(frozen=True, eq=False)
class Placement:
    """How a scan is shown.

    Attributes:
        frame: The mapping of stored axes to those of the layer's array.
        keep: The axes of the frame that the layer has.
        settings: napari's keyword arguments that position a layer with these axes.
    """

    frame: DisplayFrame
    keep: tuple[int, ...]
    settings: dict[str, Any]


def placement(grid: Grid, layer: Any = None) -> Placement:
    """The placement of a scan.

    Args:
        grid: The scan's grid.
        layer: Its image layer: one that our reader made, or one of another reader, whose array is taken as slices, rows
            and columns. Without a layer the scan lies where its grid says.
    """
    frame: DisplayFrame | None = None if layer is None else layer.metadata.get("medmaskrcnn", {}).get("frame")
    if layer is None:
        frame = display_frame(grid)
    elif frame is None:
        frame = _as_stored(grid)
    keep = shown_axes(grid, frame)
    settings = world_settings(frame, keep)
    return Placement(frame, keep, settings if layer is None else {**settings, **transform_of(layer, len(keep))})


def transform_of(layer: Any, ndim: int) -> dict[str, Any]:
    """The transform of a layer's last ``ndim`` axes, as keyword arguments for another layer."""
    matrix = layer_affine(layer, ndim)
    linear, translate = matrix[:-1, :-1], matrix[:-1, -1]
    scale = np.diag(linear)
    found: dict[str, Any] = {"scale": scale, "translate": translate, "affine": np.eye(ndim + 1)}
    if not np.allclose(linear, np.diag(scale), atol=1e-9) or scale.min() <= 0:  # turned, sheared or mirrored
        found = {"scale": np.ones(ndim), "translate": np.zeros(ndim), "affine": matrix}
    return {**found, "units": tuple(layer.units[-ndim:])} if hasattr(layer, "units") else found


def layer_affine(layer: Any, ndim: int) -> NDArray[np.float64]:
    """``(ndim + 1, ndim + 1)``: from the data coordinates of a layer's last ``ndim`` axes to the world."""
    first = layer.ndim - ndim
    points = np.zeros((ndim + 1, layer.ndim))
    points[range(ndim), range(first, layer.ndim)] = 1
    *ends, origin = (np.array(layer.data_to_world(point))[first:] for point in points)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = np.column_stack(ends) - origin[:, None]
    matrix[:-1, -1] = origin
    return matrix


def _as_stored(grid: Grid) -> DisplayFrame:
    """A frame that leaves the axes as they are."""
    d, h, w = grid.voxel_size
    unit = "mm" if grid.spacing_known else "pixel"
    return DisplayFrame((0, 1, 2), (False, False, False), grid.shape, (d, h, w), (0.0, 0.0, 0.0), unit)

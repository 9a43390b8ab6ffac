"""Moves slider and camera to an object."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel

from medmaskrcnn.structures.mask import Mask
from napari_medmaskrcnn.layers.display_frame import DisplayFrame


def fly_to(viewer: ViewerModel, layer: Any, mask: Mask, frame: DisplayFrame, keep: tuple[int, ...]) -> None:
    """Show the slice where an object is largest, with the object in the middle.

    Args:
        viewer: napari's viewer.
        layer: A layer that lies as the object's scan does.
        mask: The object, in the scan's stored axes.
        frame: How the scan is shown.
        keep: The axes of the frame that the layer has.
    """
    if mask.is_empty:
        return
    dims, shown = viewer.dims, frame.mask_to_display(mask)
    flat = tuple(i for i in range(3) if i not in keep)
    array, window = shown.array.squeeze(axis=flat), [shown.window[i] for i in keep]
    offset = dims.ndim - array.ndim
    centre = [(part.start + part.stop - 1) / 2 for part in window]
    for axis in range(array.ndim):
        if axis + offset in dims.not_displayed:
            areas = array.sum(axis=tuple(a for a in range(array.ndim) if a != axis))
            centre[axis] = window[axis].start + int(areas.argmax())
    world = layer.data_to_world(centre)
    for axis, at in enumerate(world):
        dims.set_point(axis + offset, at)
    in_plane = [world[axis - offset] for axis in dims.displayed if axis >= offset]
    camera = getattr(viewer, "scene", viewer).camera  # napari moved it in 0.9
    camera.center = (0.0, *in_plane) if len(in_plane) == 2 else tuple(in_plane)

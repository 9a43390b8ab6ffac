"""Windows of a CT by name, and window and level by dragging; the range of the contrast slider reaches all values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.image_layers import contrast_limits

WINDOWS_HU = {
    "abdomen": (40.0, 400.0),
    "soft tissue": (50.0, 350.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
}
"""Centre and width of the usual windows of a CT."""

AS_IN_FILE, ALL_VALUES = "as in the file", "all values"

_MODIFIER = "alt"
_WHOLE_RANGE_PX = 600.0
"""How far the mouse is dragged for the whole range of the scan's values."""


def window_names(volume: Volume) -> tuple[str, ...]:
    """The windows that a scan can be shown in."""
    return (AS_IN_FILE, *(WINDOWS_HU if volume.modality == "CT" else ()), ALL_VALUES)


def set_window(layer: Any, volume: Volume, name: str) -> None:
    """Show a scan's layer in a window of :func:`window_names`."""
    low, high = value_range(volume)
    limits = (low, high)
    if name in WINDOWS_HU:
        centre, width = WINDOWS_HU[name]
        limits = centre - width / 2, centre + width / 2
    elif name == AS_IN_FILE:
        limits = contrast_limits(volume)
    layer.contrast_limits_range = min(low, limits[0]), max(high, limits[1])
    layer.contrast_limits = limits


def reach_all_values(layer: Any, volume: Volume) -> None:
    """Let the contrast slider reach every value of the scan; napari lets it reach the first window alone."""
    low, high = value_range(volume)
    limits = layer.contrast_limits
    layer.contrast_limits_range = min(low, limits[0]), max(high, limits[1])
    layer.contrast_limits = limits


def value_range(volume: Volume) -> tuple[float, float]:
    """The least and the greatest finite value of a scan; different where all are equal."""
    values = volume.array
    if np.issubdtype(values.dtype, np.floating):
        values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def drag_window(layer: Any, event: Any) -> Iterator[None]:
    """A mouse callback of an image layer: with Alt held, right widens the window, and down raises its level."""
    held = {str(getattr(m, "name", m)).lower() for m in event.modifiers}
    if event.button != 1 or _MODIFIER not in held:
        return
    at, limits = np.array(event.pos, float), layer.contrast_limits
    step = (layer.contrast_limits_range[1] - layer.contrast_limits_range[0]) / _WHOLE_RANGE_PX
    pans, layer.mouse_pan = layer.mouse_pan, False
    yield
    while event.type == "mouse_move":
        right, down = np.array(event.pos, float) - at
        centre = (limits[0] + limits[1]) / 2 + down * step
        width = max(limits[1] - limits[0] + right * step, step)
        low, high = layer.contrast_limits_range
        least, most = centre - width / 2, centre + width / 2
        layer.contrast_limits_range = min(low, least), max(high, most)
        layer.contrast_limits = least, most
        yield
    layer.mouse_pan = pans

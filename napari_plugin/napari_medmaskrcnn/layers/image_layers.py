"""A scan as one napari image layer: a pure function from :class:`Volume` to layer data.

Flow: ``read_volume`` -> Volume -> (data, keyword arguments, ``"image"``) -> napari. Numbers only; napari is
not imported, so this is tested without a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.display_frame import WORLD_AXES, DisplayFrame, display_frame

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return for one layer: data, keyword arguments, layer type."""

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Window of a CT whose header names none: centre 40, width 400, the usual one for the abdomen."""

PERCENTILES = (1.0, 99.0)
SAMPLES_FOR_WINDOW = 200_000


def volume_to_layer(volume: Volume, name: str) -> LayerData:
    """The image layer of a scan, in mm in napari's world (see :mod:`.display_frame`).

    A single image becomes a 2D layer. Colour becomes an RGB layer. A fourth axis (time, echoes) comes first and
    has a slider of its own, counted 0, 1, 2.

    Args:
        volume: The scan as stored, ``(C, D, H, W)``.
        name: Name of the layer; shown on screen, so it must not contain patient data.

    Returns:
        (data, keyword arguments, ``"image"``). The data is a view of the scan's array wherever possible.
    """
    frame = display_frame(volume.grid)
    keep = shown_axes(volume.grid, frame)
    settings: dict[str, Any] = {"name": name, "metadata": layer_metadata(volume.grid, frame, volume=volume)}
    if volume.channel_kind == "colour":
        data = _drop_flat(frame.to_display(np.moveaxis(volume.array, 0, -1)), keep)
        return _displayable_rgb(data), {**settings, **world_settings(frame, keep), "rgb": True}, "image"
    channels = [_drop_flat(frame.to_display(channel), keep) for channel in volume.array]
    # rgb is said: napari takes any array whose last axis has 3 or 4 voxels for a colour picture
    settings |= {"contrast_limits": contrast_limits(volume), "colormap": "gray", "rgb": False}
    if len(channels) == 1:
        return channels[0], {**settings, **world_settings(frame, keep)}, "image"
    return np.stack(channels), {**settings, **_with_channel_axis(world_settings(frame, keep))}, "image"


def shown_axes(grid: Grid, frame: DisplayFrame) -> tuple[int, ...]:
    """World axes that the layer has: all three, or the two in the plane of a single image."""
    return tuple(i for i in range(3) if grid.shape[0] > 1 or frame.axes[i] != 0)


def world_settings(frame: DisplayFrame, keep: Sequence[int]) -> dict[str, Any]:
    """napari's keyword arguments that position a layer: one value per shown axis."""
    return {
        "scale": tuple(frame.scale[i] for i in keep),
        "translate": tuple(frame.translate[i] for i in keep),
        "units": tuple(frame.unit for _ in keep),
        "axis_labels": tuple(WORLD_AXES[i] for i in keep),
    }


def layer_metadata(grid: Grid, frame: DisplayFrame, **more: Any) -> dict[str, Any]:
    """Metadata that map a layer back to the scan's stored axes, under one key of the layer's metadata.

    Image layers carry their ``volume``, layers of a result the ``result`` and, where it is known, the ``volume``.
    """
    return {"medmaskrcnn": {"grid": grid, "frame": frame, **more}}


def contrast_limits(volume: Volume) -> tuple[float, float]:
    """Darkest and brightest value shown: the header's window, the usual one for CT, or the scan's percentiles."""
    if volume.window and np.isfinite(volume.window).all() and volume.window[1] > 0:
        centre, width = volume.window
        return centre - width / 2, centre + width / 2
    if volume.modality == "CT":
        return SOFT_TISSUE_HU
    values = volume.array.reshape(-1)
    values = values[:: max(1, values.size // SAMPLES_FOR_WINDOW)]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(values, PERCENTILES))
    return (low, high) if high > low else (float(values.min()), float(max(values.max(), values.min() + 1)))


def _drop_flat(data: NDArray[Any], keep: Sequence[int]) -> NDArray[Any]:
    """Remove the one-voxel axis of a single image; ``data`` has axes I, P, L, ..."""
    return data if len(keep) == 3 else data.squeeze(axis=next(i for i in range(3) if i not in keep))


def _displayable_rgb(data: NDArray[Any]) -> NDArray[Any]:
    """Colour in a type napari draws as it is: uint8, or float32 from 0 to 1."""
    if data.dtype == np.uint8:
        return data
    top = float(np.iinfo(data.dtype).max) if np.issubdtype(data.dtype, np.integer) else 1.0
    return np.clip(data / top, 0, 1).astype(np.float32)


def _with_channel_axis(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "scale": (1.0, *settings["scale"]),
        "translate": (0.0, *settings["translate"]),
        "units": ("pixel", *settings["units"]),
        "axis_labels": ("channel", *settings["axis_labels"]),
    }

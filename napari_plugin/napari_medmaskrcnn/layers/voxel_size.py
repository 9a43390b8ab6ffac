"""Gives a scan whose file does not tell the size of its voxels that size, as the user knows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.display_frame import display_frame
from napari_medmaskrcnn.layers.image_layers import layer_metadata, shown_axes, world_settings
from napari_medmaskrcnn.layers.scan_of_layer import MILLIMETRES

_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


def sizes_in(text: str, count: int) -> tuple[float, ...]:
    """The voxel size that a user entered: slices, rows and columns in mm, or one number for all.

    Raises:
        ValueError: if it is neither one number nor ``count`` of them, or one is 0.

    Example:
        >>> sizes_in("5 x 0.7 x 0.7 mm", 3), sizes_in("0.5", 2)
        ((5.0, 0.7, 0.7), (0.5, 0.5))
    """
    found = [float(number.replace(",", ".")) for number in _NUMBER.findall(text)]
    sizes = tuple(found * count if len(found) == 1 else found)
    if len(sizes) != count or min(sizes) <= 0:
        raise ValueError(f"Enter one size in mm, or {count} (slices x rows x columns), such as 5 x 0.7 x 0.7.")
    return sizes


def size_text(layer: Any) -> str:
    """The voxel size of a layer in mm, as the user reads and enters it; "" where it is unknown."""
    volume: Volume | None = layer.metadata.get("medmaskrcnn", {}).get("volume")
    if volume is not None:
        sizes: Sequence[float] = volume.spacing_mm or ()
        sizes = sizes[1:] if volume.is_planar else sizes
    else:
        count = min(3, layer.ndim)
        units = [str(unit) for unit in layer.units[-count:]]
        known = all(unit in MILLIMETRES for unit in units)
        sizes = np.multiply(layer.scale[-count:], [MILLIMETRES[unit] for unit in units]).tolist() if known else ()
    return " x ".join(f"{size:.4g}" for size in sizes) + (" mm" if len(sizes) else "")


def set_voxel_size(layer: Any, sizes: Sequence[float]) -> None:
    """Place a layer in mm with voxels of this size along its last axes."""
    ours = layer.metadata.get("medmaskrcnn", {})
    volume: Volume | None = ours.get("volume")
    if volume is None:
        count = len(sizes)
        layer.scale = (*layer.scale[:-count], *sizes)
        layer.units = (*layer.units[:-count], *["mm"] * count)
        return
    whole = np.array(sizes if len(sizes) == 3 else (1.0, *sizes))
    affine = volume.affine_vox_to_ras.copy()
    affine[:3, :3] = affine[:3, :3] / volume.grid.voxel_size * whole
    known = replace(volume, grid=Grid(volume.grid.shape, affine))
    frame = display_frame(known.grid)
    layer.metadata = {**layer.metadata, **layer_metadata(known.grid, frame, volume=known)}
    keep = shown_axes(known.grid, frame)
    first = layer.ndim - len(keep)
    place = world_settings(frame, keep)
    layer.scale = (*layer.scale[:first], *place["scale"])
    layer.translate = (*layer.translate[:first], *place["translate"])
    layer.units = (*layer.units[:first], *place["units"])

"""Chooses the part of a scan to trace: a slice for 2D and 2.5D models, a tile for 3D ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from medmaskrcnn.inference.detect import slice_images, tile_windows
from medmaskrcnn.inference.prepare import Preprocessed
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings import ModelFileSettings


@dataclass(frozen=True, eq=False)
class TracedWindow:
    """The network's input in one forward pass.

    Attributes:
        images: ``(1, C, *spatial)`` float32, padded as the network requires.
        shape: Spatial shape without the padding.
        low: First voxel D, H, W of the window in the prepared scan.
        slice_index: The requested or middle slice (from 0, along the network's first axis, in the scan's own slices).
        plane: The same in voxels of the window along D; 0 for a slice-wise model.
    """

    images: Tensor
    shape: tuple[int, ...]
    low: tuple[int, int, int]
    slice_index: int
    plane: int


def choose_window(prepared: Preprocessed, settings: ModelFileSettings, slice_index: int | None) -> TracedWindow:
    """The requested slice, or the tile whose centre is nearest to it; the scan's middle by default.

    Args:
        prepared: The scan as the network sees it.
        settings: The model's settings.
        slice_index: Number of a slice from 0, along the network's first axis (for most models from the feet up).

    Raises:
        ValueError: if the scan has no such slice.
    """
    slices, depth = prepared.turned_shape[0], prepared.tensor.shape[1]
    index = slices // 2 if slice_index is None else slice_index
    if not 0 <= index < slices:
        raise ValueError(f"the scan has the slices 0 to {slices - 1}, got slice {index}")
    at = min(int((index + 0.5) / prepared.scale[0]), depth - 1)
    if settings.model.spatial_dims == 2:
        images = slice_images(prepared.tensor, range(at, at + 1), settings.model.context_slices)
        low, plane = (at, 0, 0), 0
    else:
        begin, end = _nearest(tile_windows(prepared.tensor.shape[1:], settings.inference), at, prepared)
        images = prepared.tensor[None, :, begin[0] : end[0], begin[1] : end[1], begin[2] : end[2]]
        low, plane = (begin[0], begin[1], begin[2]), at - begin[0]
    padded = pad_to_multiple(images, settings.preprocess.pad_multiple)
    return TracedWindow(padded, tuple(images.shape[2:]), low, index, plane)


def _nearest(
    windows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], at: int, prepared: Preprocessed
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tile whose centre is nearest to the centre of slice ``at``."""
    _, height, width = prepared.tensor.shape[1:]
    wanted = (at + 0.5, height / 2, width / 2)
    return min(
        windows,
        key=lambda w: sum((m - (a + b) / 2) ** 2 for m, a, b in zip(wanted, *w, strict=True)),
    )

"""Runs the network on each tile or slice of a prepared scan and pastes its detections into the scan's voxels.

A 3D model runs on tiles, a 2D or 2.5D model slice by slice. Detections of the same object in neighbouring tiles or
slices are joined in the next steps (:mod:`.merge_tiles`, :mod:`.link_slices`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.detection import Detection, paste_detections
from medmaskrcnn.inference.merge_tiles import Seen, Tile, tile_starts
from medmaskrcnn.inference.prepare import NetworkRegion, Preprocessed
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings import InferenceSettings, ModelFileSettings

StageProgress = Callable[[str, float], None]
"""Called with the name of a stage and the fraction of it that is done, 0..1."""


def detect_in_tiles(
    loaded: LoadedModel,
    prepared: Preprocessed,
    window: NetworkRegion | None = None,
    progress: StageProgress = lambda stage, done: None,
) -> list[Seen]:
    """Run a 3D model over a prepared scan, tile by tile.

    Args:
        loaded: The model.
        prepared: The preprocessed scan.
        window: The region to search, in network voxels; by default the whole scan.
        progress: Called with ``"find"`` and the fraction done.

    Returns:
        Objects of every score with masks in the turned scan's voxels, each with the tile in which it was found.
    """
    settings, inference = loaded.settings, loaded.settings.inference
    origin, end = window or prepared.whole
    scale, windows = prepared.scale, tile_windows(np.subtract(end, origin).tolist(), inference)
    pasted: list[tuple[Callable[[], list[Detection]], Tile]] = []
    # Masks are pasted while the network runs on the next tiles; for the last batch a thread would only cost time.
    with ThreadPoolExecutor(1) as aside:
        for first in range(0, len(windows), inference.tiles_per_batch):
            corners = np.add(windows[first : first + inference.tiles_per_batch], origin).tolist()
            cut = [prepared.tensor[(slice(None), *map(slice, low, high))] for low, high in corners]  # of equal shape
            found_in = _detect(loaded, torch.stack(cut), [image.shape[1:] for image in cut])
            for detections, (low, high) in zip(found_in, corners, strict=True):
                own = partial(_paste, detections, low, scale, prepared.turned_shape, settings)
                is_last = first + inference.tiles_per_batch >= len(windows)
                pasted.append((own if is_last else aside.submit(own).result, _tile(low, high, scale)))
            progress("find", len(pasted) / len(windows))
        return [(item, tile) for own, tile in pasted for item in own()]


def tile_windows(shape: Sequence[int], inference: InferenceSettings) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """First voxel and last voxel + 1 (D, H, W) of each tile of an array of ``shape``."""
    starts = [tile_starts(n, t, inference.tile_overlap) for n, t in zip(shape, inference.tile, strict=True)]
    return [
        (low, tuple(min(a + t, n) for a, t, n in zip(low, inference.tile, shape, strict=True)))
        for low in product(*starts)
    ]


def detect_in_slices(
    loaded: LoadedModel,
    prepared: Preprocessed,
    window: NetworkRegion | None = None,
    progress: StageProgress = lambda stage, done: None,
) -> list[list[Detection]]:
    """Run a 2D or 2.5D model over a prepared scan, slice by slice.

    Arguments as :func:`detect_in_tiles`; only the slice range of ``window`` is used, each slice is searched whole.

    Returns:
        For each slice of the turned scan up to the last one of the window, its objects of every score.
    """
    settings, inference = loaded.settings, loaded.settings.inference
    begin, end = (corner[0] for corner in window or prepared.whole)
    plane = tuple(prepared.tensor.shape[2:])
    pasted: list[Callable[[], list[Detection]]] = []
    # Masks are pasted while the network runs on the next slices; for the last batch a thread would only cost time.
    with ThreadPoolExecutor(1) as aside:
        for first in range(begin, end, inference.slices_per_batch):
            last = min(first + inference.slices_per_batch, end)
            batch = slice_images(prepared.tensor, range(first, last), settings.model.context_slices)
            for detections in _detect(loaded, batch, [plane] * len(batch)):
                where = (0, 0), prepared.scale[1:], prepared.turned_shape[1:]
                own = partial(_paste, detections, *where, settings)
                pasted.append(own if last == end else aside.submit(own).result)
            progress("find", len(pasted) / (end - begin))
        return [*([[]] * begin), *(own() for own in pasted)]


def slice_images(tensor: Tensor, indices: range, context: int) -> Tensor:
    """Slices of ``(C, D, H, W)`` with ``context`` neighbours on each side as channels: ``(B, C * (2 c + 1), H, W)``."""
    low, high = indices.start - context, indices.stop + context
    beyond = max(-low, 0), max(high - tensor.shape[1], 0)  # zeros beyond the ends, as in training
    part = torch.nn.functional.pad(tensor[:, max(low, 0) : high], (0, 0, 0, 0, *beyond))
    return torch.stack([part[:, i : i + 2 * context + 1].flatten(0, 1) for i in range(len(indices))])


def _detect(loaded: LoadedModel, images: Tensor, shapes: list[tuple[int, ...]]) -> list[Detections]:
    padded = pad_to_multiple(images, loaded.settings.preprocess.pad_multiple)
    loaded.watch("input", padded)
    most = loaded.settings.inference.post_nms_top_n_test
    found = loaded.network.detect(padded.to(loaded.device), shapes, post_nms_top_n=most, watch=loaded.watch)
    loaded.watch("masks", found)
    return found


def _paste(
    detections: Detections,
    low: Sequence[int],
    scale: Sequence[float],
    shape: tuple[int, ...],
    settings: ModelFileSettings,
) -> list[Detection]:
    """Convert detections of a window that begins at ``low`` (network voxels) to the turned scan's voxels."""
    offset, factor = torch.tensor([*low, *low]), torch.tensor([*scale, *scale], dtype=torch.float32)
    probabilities = detections.mask_probabilities
    regions = detections.mask_boxes
    return paste_detections(
        (detections.boxes.cpu() + offset) * factor,
        detections.labels.cpu(),
        detections.scores.cpu(),
        None if probabilities is None else probabilities.cpu(),
        shape=shape,
        threshold=settings.model.detection.mask_threshold,
        mask_boxes=None if regions is None else (regions.cpu() + offset) * factor,
    )


def _tile(low: Sequence[int], high: Sequence[int], scale: Sequence[float]) -> Tile:
    """The turned scan's voxels whose centres lie in a window of network voxels, the only ones its masks may contain."""
    first, last = (
        [math.ceil(x * factor - 0.5) for x, factor in zip(corner, scale, strict=True)] for corner in (low, high)
    )
    return Tile((first[0], first[1], first[2]), (last[0], last[1], last[2]))

"""Arrays as images embedded in a page as ``data:`` URLs, so that nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Bytes = NDArray[np.uint8]

_LARGE_BYTES = 250_000
_RAMP = np.array(
    [(8, 8, 20), (40, 22, 92), (102, 32, 122), (172, 52, 108), (226, 94, 68), (248, 160, 52), (252, 226, 130)],
    dtype=np.float64,
)
"""Dark to bright in even steps of lightness, so that it can be read in grey as well."""


def data_uri(pixels: Bytes) -> str:
    """``(H, W)`` grey or ``(H, W, 3)`` colour as a ``data:`` address: PNG, or JPEG where that would be very large."""
    image, buffer, kind = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO(), "png"
    image.save(buffer, "PNG", optimize=True)
    if buffer.tell() > _LARGE_BYTES:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=88)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def grey(plane: NDArray[np.floating], *, low: float | None = None, high: float | None = None) -> Bytes:
    """``(H, W)`` values to grey; by default from the 0.5th to the 99.5th percentile."""
    return (255 * _share(plane, low, high)).astype(np.uint8)


def heat(plane: NDArray[np.floating], *, low: float | None = None, high: float | None = None) -> Bytes:
    """``(H, W)`` values to colours ``(H, W, 3)`` from dark (low) to bright (high)."""
    position = _share(plane, low, high) * (len(_RAMP) - 1)
    below = np.minimum(position.astype(int), len(_RAMP) - 2)
    part = (position - below)[..., None]
    return (_RAMP[below] * (1 - part) + _RAMP[below + 1] * part).astype(np.uint8)


def _share(plane: NDArray[np.floating], low: float | None, high: float | None) -> NDArray[np.float64]:
    values = np.nan_to_num(np.asarray(plane, dtype=np.float64))
    first = float(np.percentile(values, 0.5)) if low is None else low
    last = float(np.percentile(values, 99.5)) if high is None else high
    return np.clip((values - first) / max(last - first, 1e-12), 0, 1)


def plane_of(level: Tensor, plane: int, stride: tuple[int, ...]) -> NDArray[np.float32]:
    """The part of a map that shows one slice of the window: ``(C, H', W')`` of ``(C, *map)``.

    Args:
        level: A feature map.
        plane: Slice of the window, in its voxels along D; ignored for 2D maps.
        stride: Stride of the map per axis.
    """
    if level.ndim == 4:
        level = level[:, min(plane // stride[0], level.shape[1] - 1)]
    values: NDArray[np.float32] = level.numpy()
    return values


def strength(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Activation strength: root mean square over the channels, ``(C, H, W)`` to ``(H, W)``."""
    mean: NDArray[np.float32] = np.sqrt(np.square(maps).mean(axis=0))
    return mean

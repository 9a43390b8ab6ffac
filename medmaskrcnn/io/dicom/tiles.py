"""Whole-slide images: their frames are tiles of one picture (DICOM PS3.3, C.8.12.4), never the slices of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.guard import MAX_SCAN_BYTES


def check_tiles(frames: Sequence[Frame], matrix: tuple[int, int]) -> None:
    """Check that tiles make one picture.

    Args:
        frames: The tiles.
        matrix: Rows and columns of the picture.

    Raises:
        ReadError: if two tiles lie at one place (focal planes, stains), one lies outside, or the picture is too large.
    """
    places = [frame.tile for frame in frames]
    if len(set(places)) < len(places):
        raise ReadError(
            "several focal planes or optical paths of a slide lie over one another. Export one of them as an image"
        )
    if any(p is None or not (0 <= p[0] < matrix[0] and 0 <= p[1] < matrix[1]) for p in places):
        raise ReadError(f"tiles lie outside of the picture of {matrix[0]} x {matrix[1]} pixels; the header is damaged")
    if matrix[0] * matrix[1] * frames[0].header.samples > MAX_SCAN_BYTES:
        raise ReadError(f"a slide of {matrix[0]} x {matrix[1]} pixels is too large to read; choose a smaller level")


def join_tiles(stored: NDArray[Any], frames: Sequence[Frame], matrix: tuple[int, int], background: int) -> NDArray[Any]:
    """One picture of its tiles.

    Args:
        stored: ``(N, H, W)`` or ``(N, 3, H, W)`` pixels of the tiles.
        frames: The tiles in that order.
        matrix: Rows and columns of the picture, which cuts off what the last tiles hold beyond it.
        background: Value of pixels that no tile covers.

    Returns:
        ``(1, rows, columns)`` or ``(1, 3, rows, columns)``.
    """
    whole = np.full((1, *stored.shape[1:-2], *matrix), background, stored.dtype)
    for pixels, frame in zip(stored, frames, strict=True):
        assert frame.tile is not None, "checked when the stack was arranged"
        row, column = frame.tile
        target = whole[0, ..., row : row + pixels.shape[-2], column : column + pixels.shape[-1]]
        target[...] = pixels[..., : target.shape[-2], : target.shape[-1]]
    return whole

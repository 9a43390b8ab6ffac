"""The outline of a mask along the edges of its voxels, as SVG's path data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def outline_path(mask: NDArray[np.bool_], top: int, left: int) -> str:
    """Edges between voxels inside and outside the mask, collinear neighbours merged into lines.

    Args:
        mask: ``(h, w)``.
        top: Row of its first voxel.
        left: Column of its first voxel.
    """
    padded = np.pad(mask, 1)
    parts = []
    for row, column, length in _runs(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        parts.append(f"M{left + column} {top + row}h{length}")
    for column, row, length in _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T):
        parts.append(f"M{left + column} {top + row}v{length}")
    return "".join(parts)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, start and length of every run of true values along the second axis."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    lines, begins = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return [(int(n), int(a), int(b - a)) for n, a, b in zip(lines, begins, ends, strict=True)]

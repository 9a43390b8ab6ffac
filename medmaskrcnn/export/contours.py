"""Contours of a mask in one image plane, as RTSTRUCT requires them: closed polygons, with holes as keyholes.

An outline runs through the midpoints of the edges between a pixel that is set and a neighbour that is not (the
marching-squares line at level 0.5), so every pixel centre is on the correct side of it: filling the polygon by pixel
centres gives back the mask, voxel for voxel. Its area is that of the pixels less half a pixel.

A hole is joined to the outline around it by a channel of zero width, traversed in both directions (keyhole, PS3.3
C.8.8.6.3). The channel runs along a row of pixel centres from the hole's first edge to the nearest edge before it in
the row; both ends are points of the outlines. Such a polygon is correct for even-odd and for winding-number filling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
"""Row and column in half pixels: pixel (r, c) has its centre at (2r, 2c); middles of edges have one odd coordinate."""

Step = tuple[int, int]
_TURNS: dict[Step, tuple[Step, Step, Step]] = {  # by direction along pixel edges: right, straight on, left
    (0, 1): ((1, 0), (0, 1), (-1, 0)),
    (1, 0): ((0, -1), (1, 0), (0, 1)),
    (0, -1): ((-1, 0), (0, -1), (1, 0)),
    (-1, 0): ((0, 1), (-1, 0), (0, -1)),
}


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed polygons around the parts of a mask in one plane.

    Args:
        mask: ``(rows, columns)``.

    Returns:
        Per part an array ``(P, 2)`` of corners, row and column as voxel *indices* (an integer is the centre of a
        pixel), the last corner not repeating the first. Holes are included as keyholes. Pixels that meet only at a
        corner are separate parts.

    Example:
        >>> outlines(np.ones((1, 1), bool))[0].tolist()
        [[-0.5, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, -0.5]]
    """
    padded = np.pad(mask, 1)
    rings = [[(r - 2, c - 2) for r, c in ring] for ring in _rings(padded)]
    outer = [ring for ring in rings if _signed_area(ring) > 0]
    holes = [ring for ring in rings if _signed_area(ring) < 0]
    for hole in sorted(holes, key=_first_of_row):  # from the left: the ring that a hole's channel meets exists already
        _join(outer, hole, mask)
    return [np.asarray(_without_midpoints(ring), np.float64) / 2 for ring in outer]


def _rings(padded: NDArray[np.bool_]) -> list[list[Point]]:
    """Every boundary as its edge midpoints, set pixels on the right: outlines clockwise, holes counterclockwise."""
    following = dict(_directed_edges(padded))
    rings = []
    while following:
        start = next(iter(following))
        ring, corner, step = [], start[0], start[1]
        while (corner, step) in following:
            del following[(corner, step)]
            ring.append((2 * corner[0] + step[0] - 1, 2 * corner[1] + step[1] - 1))
            corner = (corner[0] + step[0], corner[1] + step[1])
            # where two set pixels touch only at a corner, turning right keeps them apart
            step = next((turn for turn in _TURNS[step] if (corner, turn) in following), step)
        rings.append(ring)
    return rings


def _directed_edges(padded: NDArray[np.bool_]) -> Iterator[tuple[tuple[Point, Step], None]]:
    """Edges between set and unset pixels: their starting corner and direction, in reading order."""
    down = padded[1:].astype(np.int8) - padded[:-1]  # 1: set below the edge, which then runs to the right
    across = padded[:, 1:].astype(np.int8) - padded[:, :-1]  # 1: set to the right of the edge, which then runs up
    for r, c in np.argwhere(down == 1).tolist():
        yield ((r + 1, c), (0, 1)), None
    for r, c in np.argwhere(down == -1).tolist():
        yield ((r + 1, c + 1), (0, -1)), None
    for r, c in np.argwhere(across == 1).tolist():
        yield ((r + 1, c + 1), (-1, 0)), None
    for r, c in np.argwhere(across == -1).tolist():
        yield ((r, c + 1), (1, 0)), None


def _signed_area(ring: list[Point]) -> int:
    """Twice the area in quarter pixels; positive for outlines, negative for holes."""
    points = np.asarray(ring)
    following = np.roll(points, -1, axis=0)
    return int((points[:, 1] * following[:, 0] - following[:, 1] * points[:, 0]).sum())


def _first_of_row(ring: list[Point]) -> Point:
    """The leftmost edge of a ring that lies in a row of pixels, as (column, row); the upper one if tied."""
    return min((c, r) for r, c in ring if r % 2 == 0)


def _join(outer: list[list[Point]], hole: list[Point], mask: NDArray[np.bool_]) -> None:
    """Join a hole to the ring that precedes it in the row of its leftmost edge."""
    column, row = _first_of_row(hole)
    before = np.flatnonzero(~mask[row // 2, : (column + 1) // 2])
    target = (row, 2 * int(before[-1]) + 1 if len(before) else -1)
    ring = next(ring for ring in outer if target in ring)
    at, begin = ring.index(target), hole.index((row, column))
    ring[at + 1 : at + 1] = [*hole[begin:], *hole[: begin + 1], target]


def _without_midpoints(ring: list[Point]) -> list[Point]:
    """The corners only: points on a straight line between their neighbours are dropped; turning points stay."""
    kept = []
    for k, (r, c) in enumerate(ring):
        (r0, c0), (r1, c1) = ring[k - 1], ring[(k + 1) % len(ring)]
        turned = (r - r0) * (c1 - c) != (c - c0) * (r1 - r)
        back = (r - r0) * (r1 - r) + (c - c0) * (c1 - c) <= 0
        if turned or back:
            kept.append((r, c))
    return kept

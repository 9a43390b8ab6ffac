"""``meshes/``: the surface of each instance as binary STL, for printing and for other programs.

Surfaces are made by naive surface nets (Gibson, "Constrained elastic surface nets", 1998, without the relaxation):
each cube between eight voxel centres, some inside and some not, gets one point, the mean of the midpoints of its edges
that cross the surface; each pair of neighbouring voxels, one inside and one not, gives two triangles between the
points of the four cubes around it. The surface is closed, its triangles face outwards, and no library is needed.

Coordinates are in mm, LPS, as in DICOM and 3D Slicer; the file's header says so. Where the scan's spacing is unknown
they are in pixels.
"""

from __future__ import annotations

from itertools import product
from typing import IO

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid
from medmaskrcnn.structures.mask import BoolArray

_HEADER_BYTES = 80
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_CORNERS = list(product((0, 1), repeat=3))
_EDGES = [(a, b) for a in _CORNERS for b in _CORNERS if sum(np.subtract(b, a)) == 1 and min(np.subtract(b, a)) == 0]


def surface(mask: BoolArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """The closed surface of a mask.

    Args:
        mask: ``(d, h, w)``.

    Returns:
        Points ``(P, 3)`` in voxel *indices* D, H, W (an integer is a voxel's centre), and triangles ``(T, 3)`` of
        points, facing outwards in a right-handed D, H, W. Nothing for an empty mask.
    """
    padded = np.pad(mask, 1)
    cubes = tuple(n - 1 for n in padded.shape)
    corner = {c: padded[tuple(slice(o, o + n) for o, n in zip(c, cubes, strict=True))] for c in _CORNERS}
    filled = sum(part.astype(np.int8) for part in corner.values())
    mixed = (filled > 0) & (filled < len(_CORNERS))
    number = np.full(cubes, -1, np.int64)
    number[mixed] = np.arange(np.count_nonzero(mixed))
    total, crossings = np.zeros((np.count_nonzero(mixed), 3)), np.zeros((np.count_nonzero(mixed), 1))
    for a, b in _EDGES:
        crosses = (corner[a] != corner[b])[mixed]
        total[crosses] += np.add(a, b) / 2
        crossings[crosses] += 1
    points = np.argwhere(mixed) + total / np.maximum(crossings, 1) - 1  # 1: the padding
    return points, np.concatenate([_quads(padded, number, axis) for axis in range(3)])


def _quads(padded: BoolArray, number: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Two triangles for each pair of neighbours along ``axis`` of which exactly one is inside."""
    step = np.diff(padded.astype(np.int8), axis=axis)
    after, last = (axis + 1) % 3, (axis + 2) % 3
    triangles = []
    for sign in (1, -1):
        low = np.argwhere(step == sign)
        around = []
        for back_after, back_last in ((1, 1), (0, 1), (0, 0), (1, 0)):  # turning from `after` to `last`
            cube = low.copy()
            cube[:, after] -= back_after
            cube[:, last] -= back_last
            around.append(number[tuple(cube.T)])
        a, b, c, d = around if sign < 0 else around[::-1]
        triangles += [np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)]
    return np.concatenate(triangles)


def instance_surface(result: CaseResult, i: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """The surface of the result's ``i``-th instance: points ``(P, 3)`` in LPS mm, triangles facing outwards."""
    found = result.instances
    points, triangles = surface(found.masks[i].array)
    in_lps = to_lps(found.grid, points + found.masks[i].start)
    if np.linalg.det(LPS_FROM_RAS[:3, :3] @ found.grid.affine_vox_to_ras[:3, :3]) < 0:
        triangles = triangles[:, ::-1]  # a left-handed grid turns every triangle inside out
    return in_lps, triangles


def to_lps(grid: Grid, index_vox: FloatArray) -> FloatArray:
    """World position (L, P, S in mm) of voxel indices ``(..., 3)``."""
    return np.asarray(grid.index_to_ras(index_vox) * np.diag(LPS_FROM_RAS)[:3])


def mesh_names(result: CaseResult) -> list[str]:
    """One file name per instance of the result: id and class, ``"003_left_kidney.stl"``."""
    found = result.instances
    digits = max(3, len(str(len(found))))
    words = ("".join(c if c.isalnum() else "_" for c in found.class_names[label])[:60] for label in found.labels)
    return [f"{number:0{digits}d}_{word}.stl" for number, word in enumerate(words, start=1)]


def write_mesh(result: CaseResult, i: int, stream: IO[bytes]) -> None:
    """Write the surface of the result's ``i``-th instance as binary STL; the same result gives the same bytes."""
    points, triangles = instance_surface(result, i)
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(triangles), _TRIANGLE)
    records["normal"], records["corners"] = normals / np.maximum(lengths, 1e-30), corners
    unit = "mm" if result.candidates.grid.spacing_known else "px"
    title = f"SPACE=LPS;UNIT={unit};research use only;{result.record.software}"
    stream.write(title.encode("ascii", "replace")[:_HEADER_BYTES].ljust(_HEADER_BYTES))
    stream.write(np.uint32(len(records)).astype("<u4").tobytes())
    stream.write(records.tobytes())

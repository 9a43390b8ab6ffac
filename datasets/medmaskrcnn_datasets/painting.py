"""Rasterises solids: attenuation with partial volume, label map and true volumes, one slab of slices at a time.

Structures are painted front to back. Each voxel keeps the share of it that is still uncovered; a structure covers
part of that share and adds its attenuation in proportion. A voxel's label is the frontmost structure that holds
its centre. Working in slabs bounds the memory for any scan size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn_datasets.anatomy import AIR_HU, Structure
from medmaskrcnn_datasets.shapes import Field
from medmaskrcnn_datasets.smooth_fields import SmoothField, Window

SLAB_VOXELS = 3_000_000
NOISE_SIGMA_PX = 0.7
"""Width of the noise's blur in the slice: reconstruction kernels make neighbouring pixels noisy together."""

DEFORM_SCALE_MM = 75.0
DEFORM_MM = 5.0
MOTTLE_SCALE_MM = 14.0
VESSEL_SCALE_MM = 30.0


@dataclass(frozen=True)
class Body:
    """The mapping of the anatomy's own mm to the scan: scaled to the person and slightly deformed.

    Attributes:
        grid: The scan's grid; its world origin is the anatomy's origin.
        scale: ``(3,)``, scan mm per anatomical mm along R, A, S.
        deformation: Three fields, displacement along R, A, S in units of :data:`DEFORM_MM`.
    """

    grid: Grid
    scale: NDArray[np.float64]
    deformation: tuple[SmoothField, SmoothField, SmoothField]

    def world(self, window: Window) -> tuple[Field, Field, Field]:
        """Undeformed positions R, A, S in mm, each broadcastable to the window's ``(d, h, w)``."""
        affine = self.grid.affine_vox_to_ras
        d, h, w = (
            np.arange(part.start, part.stop).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, part in enumerate(window)
        )
        x, y, z = ((r[0] * d + r[1] * h + (r[2] * w + r[3])).astype(np.float32) for r in affine[:3])
        return x, y, z

    def anatomical(self, window: Window) -> tuple[Field, Field, Field]:
        """Positions in the anatomy's own mm, R, A, S, each ``(d, h, w)``."""
        x, y, z = (
            part * np.float32(1 / scale) + np.float32(DEFORM_MM) * field.on(window)
            for part, scale, field in zip(self.world(window), self.scale, self.deformation, strict=True)
        )
        return x, y, z

    def anatomical_at(self, world_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for ``(P, 3)`` points of the scan, R, A, S in mm."""
        index = self.grid.ras_to_coordinate(world_mm) - 0.5
        moved = np.stack([f.at(index) for f in self.deformation], axis=1)
        return np.asarray(world_mm / self.scale + DEFORM_MM * moved)

    @cached_property
    def _farthest(self) -> NDArray[np.float64]:
        """Largest displacement by the deformation along R, A, S, in the anatomy's mm."""
        return DEFORM_MM * np.array([f.largest() for f in self.deformation])

    def window_of(self, structure: Structure) -> Window | None:
        """Voxels that a structure can reach, with one voxel to spare; ``None`` if it lies outside the scan."""
        low, high = structure.bounds
        if not structure.in_world:
            low, high = (low - self._farthest) * self.scale, (high + self._farthest) * self.scale
        far = 1e4
        low, high = np.clip(low, -far, far), np.clip(high, -far, far)
        corners = np.array([[(low, high)[b][a] for a, b in enumerate(bits)] for bits in np.ndindex(2, 2, 2)])
        index = self.grid.ras_to_coordinate(corners) - 0.5
        first = np.maximum(np.floor(index.min(axis=0)).astype(int) - 1, 0)
        last = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, self.grid.shape)
        if (first >= last).any():
            return None
        d, h, w = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return d, h, w


@dataclass(frozen=True)
class Textures:
    """Low-frequency random fields shared by all tissues: one for mottle, two whose common zeros are vessels."""

    mottle: SmoothField
    vessels: tuple[SmoothField, SmoothField]


def random_body(grid: Grid, scale: NDArray[np.float64], rng: np.random.Generator) -> Body:
    """A deformation drawn for this grid.

    Args:
        grid: The scan's grid.
        scale: ``(3,)``, scan mm per anatomical mm along R, A, S.
        rng: Random generator.
    """
    fields = [SmoothField(grid.shape, grid.voxel_size, scale_mm=DEFORM_SCALE_MM, rng=rng) for _ in range(3)]
    return Body(grid, scale, (fields[0], fields[1], fields[2]))


def random_textures(grid: Grid, rng: np.random.Generator) -> Textures:
    """Textures drawn for this grid."""
    mottle = SmoothField(grid.shape, grid.voxel_size, scale_mm=MOTTLE_SCALE_MM, rng=rng)
    first, second = (SmoothField(grid.shape, grid.voxel_size, scale_mm=VESSEL_SCALE_MM, rng=rng) for _ in range(2))
    return Textures(mottle, (first, second))


def paint(
    body: Body, structures: Sequence[Structure], textures: Textures, *, noise_hu: float, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint16], NDArray[np.float64]]:
    """Paint the scan, the structure shown by each voxel, and the volume of each structure.

    Args:
        body: Grid, scale and deformation.
        structures: Front first.
        textures: See :class:`Textures`.
        noise_hu: Standard deviation of the noise.
        rng: Source of the noise.

    Returns:
        HU ``(D, H, W)`` int16; for each voxel 1 + the index of the frontmost structure at its centre, or 0 for
        air, uint16; and per structure its visible volume in mm³, including partial voxels by their share.
    """
    shape = body.grid.shape
    hu = np.empty(shape, np.int16)
    owner = np.zeros(shape, np.uint16)
    volumes = np.zeros(len(structures))
    windows = [body.window_of(s) for s in structures]
    thickness = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for start in range(0, shape[0], thickness):
        slab = slice(start, min(start + thickness, shape[0]))
        exact = _paint_slab(body, structures, windows, textures, slab, owner[slab], volumes)
        exact += _noise(exact.shape, noise_hu, rng)
        hu[slab] = np.clip(np.rint(exact), -1024, 3071)
    return hu, owner, volumes * body.grid.voxel_volume_unit3


def _paint_slab(
    body: Body,
    structures: Sequence[Structure],
    windows: Sequence[Window | None],
    textures: Textures,
    slab: slice,
    owner: NDArray[np.uint16],
    volumes: NDArray[np.float64],
) -> Field:
    """Noise-free HU of the slices in ``slab``; fills ``owner`` and adds to ``volumes`` (in voxels)."""
    depth, (_, height, width) = slab.stop - slab.start, body.grid.shape
    padded = slice(max(slab.start - 1, 0), min(slab.stop + 1, body.grid.shape[0]))
    whole = (padded, slice(0, height), slice(0, width))
    positions = body.anatomical(whole)
    exact = np.zeros((depth, height, width), np.float32)
    clear = np.ones((depth, height, width), np.float32)
    for i, (structure, reach) in enumerate(zip(structures, windows, strict=True)):
        window = None if reach is None else _overlap(reach, padded)
        core = None if reach is None else _overlap(reach, slab)
        if window is None or core is None:
            continue
        field = _field(structure, body, positions, window, padded.start)
        inner = slice(core[0].start - window[0].start, core[0].stop - window[0].start)
        if field[inner].min() > 2 * max(body.grid.voxel_size):
            continue
        share = _occupancy(field)[inner]
        inside = field[inner]
        local = (slice(core[0].start - slab.start, core[0].stop - slab.start), core[1], core[2])
        share *= clear[local]
        clear[local] -= share
        volumes[i] += float(share.sum(dtype=np.float64))
        exact[local] += share * _tissue(structure, inside, textures, core)
        owner[local][(inside <= 0) & (owner[local] == 0)] = i + 1
    exact += np.float32(AIR_HU) * clear
    return exact


def _field(
    structure: Structure, body: Body, positions: tuple[Field, Field, Field], window: Window, first: int
) -> Field:
    if structure.in_world:
        return structure.shape(*np.broadcast_arrays(*body.world(window)))
    part = (slice(window[0].start - first, window[0].stop - first), window[1], window[2])
    x, y, z = (p[part] for p in positions)
    return structure.shape(x, y, z)


def _occupancy(field: Field) -> Field:
    """Share of each voxel that lies inside, from the field's value and its gradient.

    It is exact for a plane perpendicular to an axis, and 0.5 where the surface passes through the voxel's centre.
    """
    steepness = np.full(field.shape, 1e-12, np.float32)
    for axis in range(3):
        if field.shape[axis] > 1:
            change = np.gradient(field, axis=axis)
            steepness += change * change
    np.sqrt(steepness, out=steepness)
    return np.clip(np.float32(0.5) - field / steepness, 0, 1)


def _tissue(structure: Structure, inside: Field, textures: Textures, window: Window) -> Field:
    """HU of a structure's tissue on a window; ``inside`` is its field (mm, negative inside)."""
    value: Field = np.float32(structure.hu) + np.float32(structure.mottle_hu) * textures.mottle.on(window)
    if structure.rim:
        rim_hu, fade_mm = structure.rim
        value += np.float32(rim_hu - structure.hu) * np.clip(1 + inside / np.float32(fade_mm), 0, 1)
    if structure.vessels:
        added, thickness = structure.vessels
        first, second = (f.on(window) for f in textures.vessels)
        value += np.float32(added) * np.exp((first * first + second * second) * np.float32(-1 / thickness**2))
    return value


def _noise(shape: tuple[int, ...], noise_hu: float, rng: np.random.Generator) -> Field:
    """Noise with the given standard deviation, correlated in-plane."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    reach = int(4 * NOISE_SIGMA_PX + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / NOISE_SIGMA_PX) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        noise = gaussian_filter1d(noise, NOISE_SIGMA_PX, axis=axis, mode="wrap")
    return noise * np.float32(noise_hu / (kernel**2).sum())


def _overlap(window: Window, slices: slice) -> Window | None:
    """The window's part within a range of slices."""
    first, last = max(window[0].start, slices.start), min(window[0].stop, slices.stop)
    return (slice(first, last), window[1], window[2]) if first < last else None

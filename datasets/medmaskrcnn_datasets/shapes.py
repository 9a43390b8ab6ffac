"""Solids as implicit functions of position: the building blocks of the phantom's anatomy.

A shape takes coordinates R, A, S (arrays of one shape, mm) and returns a field that is negative inside, positive
outside and zero on its surface, roughly a distance in mm near it. Union is the minimum of two fields, intersection
the maximum, as usual for implicit solids. Painting divides the field by its gradient, so only its zero level and its
sign have to be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Point = tuple[float, float, float]
Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
Shape = Callable[[Field, Field, Field], Field]

EVERYWHERE: Bounds = (np.full(3, -np.inf), np.full(3, np.inf))
"""Bounds of an infinite shape."""


@dataclass(frozen=True)
class Superellipsoid:
    """``(sum |x / a|^n)^(1/n) <= 1``: an ellipsoid for n = 2, closer to a box for larger n.

    Attributes:
        centre: R, A, S in mm.
        radii: Half axes in mm, before the rotation.
        exponent: The n of the formula.
        rotation: 3 x 3 matrix whose columns are the directions of the half axes.
    """

    centre: Point
    radii: Point
    exponent: float = 2.0
    rotation: tuple[Point, Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions, in mm along the shortest half axis."""
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
        for axis, radius in zip(np.transpose(self.rotation), self.radii, strict=True):
            part = _projection((x, y, z), self.centre, axis / radius)
            total += part * part if self.exponent == 2.0 else np.abs(part) ** np.float32(self.exponent)
        root = np.sqrt(total) if self.exponent == 2.0 else total ** np.float32(1 / self.exponent)
        return np.float32(min(self.radii)) * (root - np.float32(1))

    @property
    def bounds(self) -> Bounds:
        """Corners of a box around the shape (generous for a rotated one)."""
        reach = np.abs(np.asarray(self.rotation)) @ np.asarray(self.radii)
        return np.asarray(self.centre) - reach, np.asarray(self.centre) + reach


@dataclass(frozen=True)
class Tube:
    """An elliptic tube along S with a gently curved centre line.

    Attributes:
        centre: R and A of the centre line in mm.
        radii: Half axes along R and A in mm.
        swing: Amplitudes along R and A in mm of the centre line's sine, and its phase in radians.
        exponent: As for :class:`Superellipsoid`.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    swing: Point = (0.0, 0.0, 0.0)
    exponent: float = 2.0

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions, in mm along the shorter half axis."""
        u, v = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        if self.swing[0] or self.swing[1]:
            wave = np.sin(z * np.float32(2 * np.pi / 300) + np.float32(self.swing[2]))
            u, v = u - np.float32(self.swing[0]) * wave, v - np.float32(self.swing[1]) * wave
        n = np.float32(self.exponent)
        powers = np.abs(u / np.float32(self.radii[0])) ** n + np.abs(v / np.float32(self.radii[1])) ** n
        return np.float32(min(self.radii)) * (powers ** np.float32(1 / n) - np.float32(1))

    @property
    def bounds(self) -> Bounds:
        """Corners of a box around the tube; unbounded along S."""
        reach = np.array([r + abs(s) for r, s in zip(self.radii, self.swing[:2], strict=True)] + [np.inf])
        centre = np.array([*self.centre, 0.0])
        return centre - reach, centre + reach


@dataclass(frozen=True)
class Union:
    """The union of the parts; with ``blend_mm`` the joints are smoothed."""

    parts: tuple[Superellipsoid, ...]
    blend_mm: float = 0.0

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions."""
        field = self.parts[0](x, y, z)
        for part in self.parts[1:]:
            other = part(x, y, z)
            if self.blend_mm:
                overlap = np.maximum(np.float32(self.blend_mm) - np.abs(field - other), 0)
                field = np.minimum(field, other) - overlap * overlap * np.float32(0.25 / self.blend_mm)
            else:
                np.minimum(field, other, out=field)
        return field

    @property
    def bounds(self) -> Bounds:
        """Corners of a box around all parts."""
        low = np.min([p.bounds[0] for p in self.parts], axis=0)
        return low - self.blend_mm / 4, np.max([p.bounds[1] for p in self.parts], axis=0) + self.blend_mm / 4


@dataclass(frozen=True)
class Within:
    """The part of ``base`` that lies inside all of ``inside`` and outside all of ``outside``.

    Attributes:
        base: The solid that is trimmed; its bounds are the result's.
        inside: Solids to intersect with.
        outside: Solids to cut away.
    """

    base: Superellipsoid | Tube | Union
    inside: tuple[Shape, ...] = ()
    outside: tuple[Shape, ...] = ()

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions."""
        field = self.base(x, y, z)
        for shape in self.inside:
            np.maximum(field, shape(x, y, z), out=field)
        for shape in self.outside:
            np.maximum(field, -shape(x, y, z), out=field)
        return field

    @property
    def bounds(self) -> Bounds:
        """Corners of a box around the untrimmed solid."""
        return self.base.bounds


@dataclass(frozen=True)
class Diaphragm:
    """Everything below a two-domed surface: negative in the abdomen, positive in the chest.

    Attributes:
        domes: For each dome its R, A and S of the top in mm.
        fall_per_mm: The surface falls ``fall_per_mm * distance^2`` from a top; in 1/mm.
        shift_mm: Distance by which the surface is lowered.
    """

    domes: tuple[Point, ...]
    fall_per_mm: float
    shift_mm: float = 0.0

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """Height above the surface in mm."""
        fall = np.float32(self.fall_per_mm)
        tops = [
            np.float32(s - self.shift_mm) - fall * ((x - np.float32(r)) ** 2 + (y - np.float32(a)) ** 2)
            for r, a, s in self.domes
        ]
        return z - np.maximum.reduce(tops)


@dataclass(frozen=True)
class Ribs:
    """Bars in the chest wall, one every ``pitch_mm``, sloping down towards the front.

    Attributes:
        wall: Field of the surface in which the ribs' axes lie.
        below: The ribs end below this surface (:class:`Diaphragm` lowered).
        pitch_mm, phase_mm: Distance from rib to rib along S, and where the first lies.
        half_mm: Half thickness across the wall and half height, mm.
        fall: Slope along A, mm per mm.
    """

    wall: Tube
    below: Diaphragm
    pitch_mm: float
    phase_mm: float
    half_mm: tuple[float, float]
    fall: float

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions, in mm across the wall."""
        across = self.wall(x, y, z) / np.float32(self.half_mm[0])
        along = z + np.float32(self.fall) * y - np.float32(self.phase_mm)
        pitch = np.float32(self.pitch_mm)
        from_rib = (along - pitch * np.rint(along / pitch)) / np.float32(self.half_mm[1])
        bars = np.float32(self.half_mm[0]) * (np.sqrt(across * across + from_rib * from_rib) - np.float32(1))
        return np.maximum(bars, -self.below(x, y, z))

    bounds = EVERYWHERE


def _projection(position: tuple[Field, Field, Field], centre: Point, direction: NDArray[np.float64]) -> Field:
    """``(position - centre) . direction``, leaving out the axes that do not count."""
    terms = [v * np.float32(w) for v, w in zip(position, direction, strict=True) if abs(w) > 1e-9]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total - np.float32(np.dot(centre, direction))

"""Places tumours: slightly irregular ellipsoids in millimetres, entirely inside their organ and the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn_datasets.anatomy import TUMOUR, Structure
from medmaskrcnn_datasets.painting import Body
from medmaskrcnn_datasets.shapes import Bounds, Field, Point, Superellipsoid

SMALLEST_MM = 8.0
ATTEMPTS = 300
GAP_MM = 6.0
"""Smallest gap between two tumours that do not touch."""

_HOSTS = {"liver": (0.45, 45.0), "right lung": (0.2, 40.0), "left lung": (0.2, 40.0),
          "right kidney": (0.075, 28.0), "left kidney": (0.075, 28.0)}  # fmt: skip
"""Per organ how often it is chosen, and the largest diameter in mm."""

_RIPPLE = 0.05
"""Largest bump of the surface, as a share of the radius."""


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid with a rippled surface, in the scan's own millimetres.

    Attributes:
        ellipsoid: The smooth solid.
        waves: Rows of three: wave vectors in 1/mm, one for each ripple.
        phases: Their phases in radians.
    """

    ellipsoid: Superellipsoid
    waves: tuple[Point, ...]
    phases: tuple[float, ...]

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """The field at the given positions, in mm along the shortest half axis."""
        radius = np.float32(min(self.ellipsoid.radii))
        bumps = np.zeros(x.shape, np.float32)
        for wave, phase in zip(self.waves, self.phases, strict=True):
            u, v, w = (np.float32(k) for k in wave)
            bumps += np.sin(u * x + v * y + w * z + np.float32(phase))
        return self.ellipsoid(x, y, z) + radius * np.float32(_RIPPLE / len(self.waves)) * bumps

    @property
    def bounds(self) -> Bounds:
        """Corners of a box around the lesion."""
        low, high = self.ellipsoid.bounds
        margin = _RIPPLE * max(self.ellipsoid.radii) + 0.5
        return low - margin, high + margin


def place_tumours(
    body: Body, organs: Sequence[Structure], *, count: int, touching: bool, rng: np.random.Generator
) -> list[Structure]:
    """Up to ``count`` tumours at random places in liver, lungs and kidneys.

    Args:
        body: Mapping of the anatomy to the scan.
        organs: The anatomy, front first; ``host`` of each tumour is an index into it.
        count: How many to place; fewer are placed only where the scan shows too little of the organs.
        touching: The first two lie in one organ and touch.
        rng: Random generator.
    """
    hosts = {s.name: i for i, s in enumerate(organs) if s.name in _HOSTS}
    names = [n for n in hosts if _reachable(body, organs[hosts[n]]) is not None]
    if not names:
        return []
    weights = np.array([_HOSTS[n][0] for n in names])
    placed: list[Structure] = []
    for number in range(count):
        twin = placed[0] if touching and number == 1 and placed else None
        for _ in range(6):
            name = (
                placed[0].name.removesuffix(f" {TUMOUR}") if twin else str(rng.choice(names, p=weights / weights.sum()))
            )
            found = _grow(body, organs, hosts[name], placed, twin, rng)
            if found is not None:
                placed.append(found)
                break
    return placed


def _grow(
    body: Body,
    organs: Sequence[Structure],
    host: int,
    placed: Sequence[Structure],
    twin: Structure | None,
    rng: np.random.Generator,
) -> Structure | None:
    """Place one tumour in the organ, smaller after every few failures; ``None`` if there is no room."""
    organ = organs[host]
    box = _reachable(body, organ)
    assert box is not None
    largest = _HOSTS[organ.name][1]
    diameter = float(rng.uniform(SMALLEST_MM, largest))
    if twin is not None:
        diameter = float(np.clip((twin.diameter_mm or diameter) * rng.uniform(0.6, 1.3), SMALLEST_MM, largest))
    for attempt in range(ATTEMPTS):
        if attempt % 25 == 24:
            diameter = max(SMALLEST_MM, diameter * 0.85)
        lesion = _lesion(rng.uniform(*box), diameter, rng)
        if twin is not None:
            lesion = _beside(lesion, twin, rng)
        if _fits(body, organs, host, lesion) and _apart(lesion, placed, twin):
            return Structure(
                f"{organ.name} {TUMOUR}",
                lesion,
                _tumour_hu(organ, rng),
                mottle_hu=4.0,
                class_name=TUMOUR,
                host=host,
                in_world=True,
                diameter_mm=2 * max(lesion.ellipsoid.radii),
            )
    return None


def _lesion(centre: NDArray[np.float64], diameter: float, rng: np.random.Generator) -> Lesion:
    """``diameter`` is the longest axis in mm; the others are 0.7 to 1 of it."""
    shares = np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.7, 1.0)])
    a, b, c = (float(r) for r in rng.permutation(shares) * diameter / 2)
    turn, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    turn = turn * np.sign(np.diag(upper))
    rows = [(float(r[0]), float(r[1]), float(r[2])) for r in turn]
    waves = rng.standard_normal((3, 3))
    waves *= (2 * np.pi / (0.8 * diameter)) / np.linalg.norm(waves, axis=1, keepdims=True)
    x, y, z = (float(v) for v in centre)
    return Lesion(
        Superellipsoid((x, y, z), (a, b, c), 2.0, (rows[0], rows[1], rows[2])),
        tuple((float(w[0]), float(w[1]), float(w[2])) for w in waves),
        tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 3)),
    )


def _beside(lesion: Lesion, twin: Structure, rng: np.random.Generator) -> Lesion:
    """The lesion moved so that its surface just touches that of ``twin``, in a random direction."""
    other = twin.shape
    assert isinstance(other, Lesion)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    distance = 0.96 * (_support(lesion, direction) + _support(other, direction))
    x, y, z = (float(v) for v in np.asarray(other.ellipsoid.centre) + distance * direction)
    moved = lesion.ellipsoid
    return Lesion(Superellipsoid((x, y, z), moved.radii, 2.0, moved.rotation), lesion.waves, lesion.phases)


def _support(lesion: Lesion, direction: NDArray[np.float64]) -> float:
    """Distance from the centre to the surface along a direction, mm (ripples aside)."""
    axes = np.asarray(lesion.ellipsoid.rotation).T
    return float(1 / np.linalg.norm(axes @ direction / np.asarray(lesion.ellipsoid.radii)))


def _surface(lesion: Lesion, grow_mm: float) -> NDArray[np.float64]:
    """Points ``(P, 3)`` R, A, S on the surface and halfway in, the surface moved out by ``grow_mm``."""
    ellipsoid = lesion.ellipsoid
    k = np.arange(96) + 0.5
    polar, turn = np.arccos(1 - 2 * k / 96), np.pi * (1 + 5**0.5) * k  # Fibonacci's lattice on the sphere
    sphere = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    outer = sphere * (np.asarray(ellipsoid.radii) * (1 + _RIPPLE) + grow_mm)
    points = np.concatenate([outer, outer * 0.5, np.zeros((1, 3))])
    return np.asarray(points @ np.asarray(ellipsoid.rotation).T + ellipsoid.centre)


def _fits(body: Body, organs: Sequence[Structure], host: int, lesion: Lesion) -> bool:
    """Whether a lesion is inside the scan and the organ, with 1 mm margin, and clear of what is cut out of it."""
    points = _surface(lesion, 1.0)
    index = body.grid.ras_to_coordinate(points)
    if (index < 2).any() or (index > np.array(body.grid.shape) - 2).any():
        return False
    x, y, z = (column.astype(np.float32) for column in body.anatomical_at(points).T)
    if (organs[host].shape(x, y, z) > 0).any():
        return False
    return all((front.shape(x, y, z) > 0).all() for front in organs[:host])


def _apart(lesion: Lesion, placed: Sequence[Structure], twin: Structure | None) -> bool:
    """Whether a lesion is far from all tumours except ``twin``."""
    points = _surface(lesion, GAP_MM)
    x, y, z = (column.astype(np.float32) for column in points.T)
    return all((p.shape(x, y, z) > 0).all() for p in placed if p is not twin)


def _reachable(body: Body, organ: Structure) -> Bounds | None:
    """The part of an organ's box that the scan shows, in the scan's mm; ``None`` if there is none."""
    low, high = (corner * body.scale for corner in organ.bounds)
    corners = np.array(
        [[(0, n)[b] for n, b in zip(body.grid.shape, bits, strict=True)] for bits in np.ndindex(2, 2, 2)]
    )
    seen = body.grid.coordinate_to_ras(corners)
    low, high = np.maximum(low, seen.min(axis=0)), np.minimum(high, seen.max(axis=0))
    return (low, high) if (high - low > SMALLEST_MM).all() else None


def _tumour_hu(organ: Structure, rng: np.random.Generator) -> float:
    """Attenuation in HU: lower than liver and kidney, soft tissue in the lung."""
    if organ.name == "liver":
        return float(organ.hu - rng.uniform(42, 65))
    if "kidney" in organ.name:
        return float(organ.hu - rng.uniform(48, 75))
    return float(rng.uniform(20, 60))

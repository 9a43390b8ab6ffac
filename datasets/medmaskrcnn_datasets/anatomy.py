"""The phantom's anatomy: the solids that make up a trunk, their positions and their attenuation.

Positions are R, A, S in mm of a body 330 mm wide; larger and smaller people are scaled. The origin lies in the
middle of the body at the height of the liver. Structures come in painting order, front first: what comes earlier
hides what comes later, so the gallbladder is cut out of the liver and the heart out of the left lung.
HU are those of a portal venous phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn_datasets.shapes import (
    EVERYWHERE,
    Bounds,
    Diaphragm,
    Point,
    Ribs,
    Shape,
    Superellipsoid,
    Tube,
    Union,
    Within,
)

TUMOUR = "tumour"
CLASS_NAMES = (
    "liver", "spleen", "right kidney", "left kidney", "right lung", "left lung", "vertebra", TUMOUR,
)  # fmt: skip
AIR_HU = -1000.0


@dataclass(frozen=True)
class Structure:
    """One solid of the body.

    Attributes:
        name: Its name.
        shape: Its solid.
        hu: Mean attenuation in HU.
        mottle_hu: Standard deviation of its low-frequency texture in HU.
        rim: (HU at the surface, mm over which it fades inwards), e.g. the cortex of a bone, or ``None``.
        vessels: (HU added in the vessels, their thickness as a share of the texture's scale), or ``None``.
        class_name: One of :data:`CLASS_NAMES` if it is labelled, else ``None``.
        host: Index of the structure that a tumour lies in, counted among the organs.
        in_world: The shape is in the scan's mm (tumours), not in the undeformed body's.
        diameter_mm: Longest axis of a tumour.
    """

    name: str
    shape: Shape
    hu: float
    mottle_hu: float = 4.0
    rim: tuple[float, float] | None = None
    vessels: tuple[float, float] | None = None
    class_name: str | None = None
    host: int | None = None
    in_world: bool = False
    diameter_mm: float | None = None

    @property
    def bounds(self) -> Bounds:
        """Bounding box of the solid, infinite where it is unbounded."""
        return getattr(self.shape, "bounds", EVERYWHERE)


@dataclass(frozen=True)
class _Frame:
    """The body wall that the organs are fitted into."""

    skin: Tube
    under_skin: Tube
    muscle: Tube
    rib_line: Tube
    cavity: Tube
    diaphragm: Diaphragm


class _Chance:
    """Draws the variation between people."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def near(self, value: float, spread: float) -> float:
        return float(value + self.rng.uniform(-spread, spread))

    def point(self, centre: Point, spread: float) -> Point:
        return self.near(centre[0], spread), self.near(centre[1], spread), self.near(centre[2], spread)

    def radii(self, radii: Point) -> Point:
        a, b, c = (r * self.near(1, 0.1) for r in radii)
        return a, b, c

    def rotation(self, about: Point, spread: float) -> tuple[Point, Point, Point]:
        """A rotation by ``about`` +- ``spread`` degrees about the R, A and S axes."""
        matrix = np.eye(3)
        for axis, angle in enumerate(about):
            turn = np.radians(self.near(angle, spread))
            i, j = [k for k in range(3) if k != axis]
            step = np.eye(3)
            step[i, i] = step[j, j] = np.cos(turn)
            step[i, j], step[j, i] = -np.sin(turn), np.sin(turn)
            matrix = step @ matrix
        first, second, third = ((float(r[0]), float(r[1]), float(r[2])) for r in matrix)
        return first, second, third

    def blob(
        self, centre: Point, radii: Point, *, spread: float = 5.0, turn: Point = (0, 0, 0), exponent: float = 2.0
    ) -> Superellipsoid:
        return Superellipsoid(self.point(centre, spread), self.radii(radii), exponent, self.rotation(turn, 6.0))


def make_anatomy(rng: np.random.Generator) -> list[Structure]:
    """A trunk without tumours, in painting order. All randomness comes from ``rng``."""
    chance = _Chance(rng)
    frame = _frame(chance)
    return [
        *_spine(chance, frame),
        *_vessels(chance),
        *_kidneys(chance, frame),
        *_liver_and_spleen(chance, frame),
        *_bowel(chance, frame),
        *_chest(chance, frame),
        *_walls(chance, frame),
    ]


def _frame(chance: _Chance) -> _Frame:
    depth = chance.near(112, 8)
    fat = chance.near(17, 7)
    wall = chance.near(13, 2)
    exponent = chance.near(2.35, 0.15)

    def layer(side: float, front: float, back: float) -> Tube:
        """A wall at R = +-side, A = front and A = -back."""
        return Tube((0.0, (front - back) / 2), (side, (front + back) / 2), exponent=exponent)

    inner = fat + wall
    right = (chance.near(68, 6), chance.near(8, 6), chance.near(48, 8))
    left = (chance.near(-68, 6), chance.near(4, 6), right[2] - chance.near(14, 6))
    return _Frame(
        skin=layer(165, depth, depth),
        under_skin=layer(163, depth - 2, depth - 2),
        muscle=layer(165 - fat, depth - fat, depth - 6),
        rib_line=layer(165 - fat - wall * 0.55, depth - fat - wall * 0.55, 83),
        cavity=layer(165 - inner, depth - inner, 76),
        diaphragm=Diaphragm((right, left), fall_per_mm=chance.near(0.0085, 0.0015)),
    )


def _spine(chance: _Chance, frame: _Frame) -> list[Structure]:
    """Vertebrae from about L4 to the upper chest, the discs between them and the spinal canal."""
    structures = [
        Structure("spinal canal", Tube((0.0, -84.0), (8.0, 7.5)), 25, 3.0),
    ]
    disc_mm = chance.near(7.5, 1.0)
    lean = chance.near(0, 5)
    dense = chance.near(240, 50)
    z = chance.near(-200, 12)
    while z < 290:
        height = float(np.interp(z, [-200, 100], [30, 21])) * chance.near(1, 0.03)
        width = float(np.interp(z, [-200, 100], [24, 17]))
        middle = z + height / 2
        x = lean * float(np.sin(middle / 90))
        bone = Within(_vertebra(chance, x, middle, width, height), inside=(frame.muscle,))
        structures.append(
            Structure("vertebra", bone, dense, 18.0, rim=(chance.near(640, 60), 4.0), class_name="vertebra")
        )
        disc = Superellipsoid((x, -60.0, z - disc_mm / 2), (width * 0.96, width * 0.7, disc_mm / 2 + 1.5), exponent=4.0)
        structures.append(Structure("disc", disc, 85, 4.0))
        z += height + disc_mm
    bodies = [s for s in structures if s.name != "disc"]
    return bodies + [s for s in structures if s.name == "disc"]


def _vertebra(chance: _Chance, x: float, middle: float, width: float, height: float) -> Union:
    """Vertebral body, arch around the canal, spinous and transverse processes; not as high as its disc space."""
    half = height / 2
    return Union(
        (
            Superellipsoid((x, -60.0, middle), (width, width * 0.72, half), exponent=4.5),
            Superellipsoid((0.0, -84.0, middle), (15.0, 14.0, half * 0.72), exponent=2.5),
            Superellipsoid((0.0, -94.0, middle - 3), (4.5, 15.0, half * 0.62), exponent=2.5),
            Superellipsoid((0.0, -84.0, middle), (width * chance.near(1.6, 0.1), 5.5, half * 0.45), exponent=2.5),
        ),
        blend_mm=3.0,
    )


def _vessels(chance: _Chance) -> list[Structure]:
    swing = (chance.near(0, 4), chance.near(0, 4), chance.near(0, 3))
    return [
        Structure("aorta", Tube((chance.near(-13, 3), -28.0), (10.5, 10.5), swing), chance.near(165, 15), 2.0),
        Structure("vena cava", Tube((chance.near(19, 3), -25.0), (11.5, 9.5), swing), chance.near(135, 12), 3.0),
    ]


def _kidneys(chance: _Chance, frame: _Frame) -> list[Structure]:
    structures = []
    hu = chance.near(152, 10)
    for name, side, low in (("right kidney", 1, -98.0), ("left kidney", -1, -84.0)):
        centre = chance.point((side * 62.0, -42.0, low), 5.0)
        turn = (12.0, -side * 8.0, side * 25.0)
        body = Superellipsoid(centre, chance.radii((27.0, 23.0, 54.0)), 2.15, chance.rotation(turn, 5.0))
        hilum = Superellipsoid((centre[0] - side * 23, centre[1] + 6, centre[2]), chance.radii((17.0, 9.0, 24.0)))
        kidney = Within(body, inside=(frame.cavity,), outside=(hilum,))
        structures.append(Structure(name, kidney, hu - 14, 6.0, rim=(hu + 14, 9.0), class_name=name))
    return structures


def _liver_and_spleen(chance: _Chance, frame: _Frame) -> list[Structure]:
    under = Diaphragm(frame.diaphragm.domes, frame.diaphragm.fall_per_mm, shift_mm=3.0)
    drop = chance.near(0, 10)
    right = chance.blob((66, -4, -30 + drop), (66, 68, 82), exponent=2.3, turn=(0, 8, 0))
    left = chance.blob((4, 42, 4 + drop), (78, 30, 34), turn=(0, -10, -8))
    hollow = chance.blob((-8, -25, -112), (74, 62, 78))
    liver = Within(Union((right, left), blend_mm=20.0), inside=(frame.cavity, under), outside=(hollow,))
    spleen = Within(chance.blob((-92, -34, -12), (26, 46, 52), turn=(20, 14, 22)), inside=(frame.cavity, under))
    bladder = chance.blob((38, 42, -58 + drop / 2), (15, 17, 26), turn=(20, 0, 0))
    hu = chance.near(108, 10)
    return [
        Structure("gall bladder", bladder, 10, 2.0),
        Structure("spleen", spleen, chance.near(124, 8), 4.0, class_name="spleen"),
        Structure("liver", liver, hu, 6.0, vessels=(38.0, 0.16), class_name="liver"),
    ]


def _bowel(chance: _Chance, frame: _Frame) -> list[Structure]:
    """Stomach and bowel: soft tissue, some loops with gas on top; they fill the space between the organs."""
    under = Diaphragm(frame.diaphragm.domes, frame.diaphragm.fall_per_mm, shift_mm=4.0)
    stomach = chance.blob((-48, 22, -22), (40, 42, 48), turn=(0, 20, 0))
    gas = Superellipsoid((stomach.centre[0], stomach.centre[1] + 30, stomach.centre[2]), (26.0, 10.0, 30.0))
    structures = [
        Structure("stomach gas", Within(gas, inside=(frame.cavity, under, stomach)), -930, 5.0),
        Structure("stomach", Within(stomach, inside=(frame.cavity, under)), chance.near(30, 15), 9.0),
        Structure("pancreas", chance.blob((-12, 4, -48), (58, 13, 16), turn=(0, 12, 6)), 90, 9.0),
    ]
    for _ in range(int(chance.rng.integers(18, 28))):
        centre = (chance.near(0, 105), chance.near(18, 42), chance.near(-135, 62))
        loop = chance.blob(centre, (chance.near(26, 10), 16, 17), turn=(0, chance.near(0, 80), chance.near(0, 60)))
        lumen = Within(loop, inside=(frame.cavity, under))
        if chance.rng.random() < 0.3:
            top = Superellipsoid((loop.centre[0], loop.centre[1] + 6, loop.centre[2]), (14.0, 9.0, 11.0))
            structures.append(Structure("bowel gas", Within(top, inside=(frame.cavity, under, loop)), -920, 5.0))
        structures.append(Structure("bowel", lumen, chance.near(42, 18), 10.0))
    return structures


def _chest(chance: _Chance, frame: _Frame) -> list[Structure]:
    hu = chance.near(-850, 20)
    chest = Tube(
        frame.cavity.centre, (frame.cavity.radii[0] - 3, frame.cavity.radii[1] - 3), exponent=frame.cavity.exponent
    )
    heart = chance.blob((-22, 34, 62), (46, 40, 44), turn=(0, -20, 25))
    tissue = Superellipsoid((0.0, -5.0, 120.0), (24.0, 60.0, 140.0), exponent=3.0)
    structures = [
        Structure("heart", Within(heart, outside=(frame.diaphragm,)), chance.near(145, 10), 12.0, rim=(105, 12.0)),
        Structure("trachea", Within(Superellipsoid((2.0, -8.0, 210.0), (9.0, 8.0, 75.0), 4.0)), -980, 1.0),
    ]
    for name, side, height in (("right lung", 1, 128.0), ("left lung", -1, 128.0)):
        whole = chance.blob((side * 70.0, -4, 70), (62, 92, height), spread=4.0, exponent=2.5)
        lung = Within(whole, inside=(chest,), outside=(frame.diaphragm, tissue))
        structures.append(Structure(name, lung, hu, 12.0, vessels=(760.0, 0.11), class_name=name))
    mediastinum = Structure("mediastinum", tissue, 20, 30.0)
    return [*structures, mediastinum]


def _walls(chance: _Chance, frame: _Frame) -> list[Structure]:
    below = Diaphragm(frame.diaphragm.domes, frame.diaphragm.fall_per_mm, shift_mm=chance.near(60, 10))
    pitch = chance.near(29, 2)
    ribs = Ribs(frame.rib_line, below, pitch, chance.near(0, pitch / 2), (3.8, 6.0), chance.near(0.35, 0.1))
    muscle = chance.near(56, 4)
    psoas = [
        Structure("psoas", Superellipsoid((side * 33.0, -52.0, -190.0), (15.0, 15.0, 120.0)), muscle, 5.0)
        for side in (1, -1)
    ]
    back = [
        Structure(
            "back muscle",
            Within(Tube((side * 33.0, -88.0), (25.0, 17.0), exponent=2.5), inside=(frame.muscle,)),
            muscle,
            9.0,
        )
        for side in (1, -1)
    ]
    return [
        Structure("ribs", ribs, 260, 15.0, rim=(560, 2.5)),
        *psoas,
        *back,
        Structure("fat inside", frame.cavity, -98, 8.0),
        Structure("muscle", frame.muscle, muscle, 9.0),
        Structure("fat", frame.under_skin, -102, 7.0),
        Structure("skin", frame.skin, 20, 5.0),
    ]


def scale_to(body_width_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Millimetres per anatomical millimetre along R, A, S, ``(3,)``, for a person of this width."""
    size = body_width_mm / 330
    return np.array([size, size * rng.uniform(0.95, 1.05), (0.5 + 0.5 * size) * rng.uniform(0.95, 1.04)])

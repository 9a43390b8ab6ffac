"""Settings of a phantom: its seed, its grid and its content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.structures.grid import FloatArray, Grid

Shape3 = tuple[int, int, int]
Triple = tuple[float, float, float]

_DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
MAX_TUMOURS = 8
LOWEST_MM = -160.0
"""Where a scan of the phantom begins by default: just below the kidneys, in the anatomy's S coordinate."""


@dataclass(frozen=True)
class PhantomSettings:
    """Everything that determines a phantom; equal settings give equal bytes.

    Attributes:
        seed: Determines the anatomy, the tumours, the texture and the noise.
        shape: Voxels along D, H, W.
        spacing_mm: Distance of voxel centres along D, H, W in mm.
        orientation: Directions of D, H, W before the rotation, e.g. ``"SPL"``: superior, posterior, left.
        rotation_degrees: The grid is turned by these angles about the patient's R, A and S axes.
        gantry_tilt_degrees: Each slice is shifted along H so that the stack leans by this angle (a shear).
        offset_mm: R, A, S of the scan's centre relative to the anatomy; ``None`` starts the scan below the kidneys.
        body_width_mm: Width of the body from right to left.
        tumours: How many tumours to place, 0 to 8.
        touching: Whether two of them touch in one organ (needs at least two).
        noise_hu: Standard deviation of the noise.

    Raises:
        ValueError: if a value is out of its range.
    """

    seed: int
    shape: Shape3 = (128, 256, 256)
    spacing_mm: Triple = (2.5, 1.45, 1.45)
    orientation: str = "SPL"
    rotation_degrees: Triple = (0.0, 0.0, 0.0)
    gantry_tilt_degrees: float = 0.0
    offset_mm: Triple | None = None
    body_width_mm: float = 330.0
    tumours: int = 4
    touching: bool = False
    noise_hu: float = 15.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if len(self.shape) != 3 or min(self.shape) < 2:
            raise ValueError(f"shape must be three extents D, H, W of at least 2, got {self.shape}")
        if len(self.spacing_mm) != 3 or not all(0 < s < np.inf for s in self.spacing_mm):
            raise ValueError(f"spacing_mm must be three positive lengths, got {self.spacing_mm}")
        if len(self.orientation) != 3 or {_axis(c) for c in self.orientation} != {0, 1, 2}:
            raise ValueError(f"orientation must name each of R/L, A/P, S/I once, like 'SPL', got {self.orientation!r}")
        if not 0 <= self.tumours <= MAX_TUMOURS:
            raise ValueError(f"tumours must be 0 to {MAX_TUMOURS}, got {self.tumours}")
        if self.touching and self.tumours < 2:
            raise ValueError(f"touching needs at least two tumours, got {self.tumours}")
        if not 200 <= self.body_width_mm <= 450 or not 0 <= self.noise_hu <= 200:
            raise ValueError(
                f"body_width_mm must be 200 to 450 and noise_hu 0 to 200, got {self.body_width_mm}, {self.noise_hu}"
            )
        if abs(self.gantry_tilt_degrees) > 30:
            raise ValueError(f"gantry_tilt_degrees must be at most 30, got {self.gantry_tilt_degrees}")

    @property
    def grid(self) -> Grid:
        """The scan's grid; the anatomy's origin lies at world R, A, S = 0."""
        directions = np.array([_DIRECTIONS[c] for c in self.orientation], dtype=np.float64).T
        columns = _rotation(self.rotation_degrees) @ directions * self.spacing_mm
        lean = np.tan(np.radians(self.gantry_tilt_degrees)) * self.spacing_mm[0] / self.spacing_mm[1]
        columns[:, 0] += lean * columns[:, 1]
        affine = np.eye(4)
        affine[:3, :3] = columns
        centre = self._centre(columns) - columns @ ((np.array(self.shape) - 1) / 2)
        affine[:3, 3] = np.round(centre, 3)
        return Grid(self.shape, affine)

    def _centre(self, columns: FloatArray) -> FloatArray:
        if self.offset_mm is not None:
            return np.asarray(self.offset_mm, dtype=np.float64)
        height = float(np.abs(columns[2]) @ np.array(self.shape))
        return np.array([0.0, 0.0, LOWEST_MM + height / 2 if height < 400 else 30.0])


def random_settings(seed: int, *, max_shape: Shape3 = (128, 256, 256)) -> PhantomSettings:
    """Settings drawn from the seed, with the variation between hospitals.

    Args:
        seed: The same seed gives the same settings (for one ``max_shape``), and is the phantom's own seed.
        max_shape: Largest number of voxels along S, A and R; the in-plane ones are used in full.

    Returns:
        Settings with 240 to 340 mm of the trunk, slices of 1 to 4 mm, pixels of 0.7 to 1.5 mm where
        ``max_shape`` allows, mostly axial without rotation, sometimes oblique or with swapped axes.
    """
    rng = np.random.default_rng([seed, 1])
    width = float(np.round(rng.uniform(290, 350)))
    pixel = float(np.round((width + rng.uniform(15, 45)) / min(max_shape[1:]), 3))
    extent = rng.uniform(240, 340)
    slice_mm = float(np.round(max(rng.uniform(1, 4), extent / max_shape[0]), 2))
    shape = (max(2, min(max_shape[0], int(extent / slice_mm))), max_shape[1], max_shape[2])
    spacing = (slice_mm, pixel, pixel)
    orientation = str(rng.choice(["SPL", "SPL", "SAL", "SAR", "IPL", "SPR", "other"]))
    if orientation == "other":
        order = rng.permutation(3)
        orientation = "".join(str(rng.choice(list(("SI", "PA", "LR")[i]))) for i in order)
        shape = (shape[order[0]], shape[order[1]], shape[order[2]])
        spacing = (spacing[order[0]], spacing[order[1]], spacing[order[2]])
    angles = rng.uniform(-1, 1, 3) * (10 if rng.random() < 0.4 else 0)
    offset = (*rng.uniform(-8, 8, 2), LOWEST_MM + extent / 2 + rng.uniform(-10, 15))
    tumours = int(rng.integers(0, MAX_TUMOURS + 1))
    return PhantomSettings(
        seed=seed,
        shape=shape,
        spacing_mm=spacing,
        orientation=orientation,
        rotation_degrees=_triple(np.round(angles, 2)),
        offset_mm=_triple(np.round(offset, 1)),
        body_width_mm=width,
        tumours=tumours,
        touching=bool(tumours >= 2 and rng.random() < 0.35),
        noise_hu=float(np.round(rng.uniform(12, 20), 1)),
    )


def _axis(letter: str) -> int:
    """World axis 0, 1, 2 of a direction letter; -1 for other letters."""
    return next((i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair), -1)


def _triple(values: FloatArray) -> Triple:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _rotation(degrees: Triple) -> FloatArray:
    """Rotation about R, then A, then S."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix

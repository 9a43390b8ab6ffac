"""The position of voxels in the patient, and the only module that handles the half-voxel offset.

An array has two coordinate systems, and confusing them is a classic error of this field:

* a *voxel index* is an integer that names a voxel and, put through a NIfTI or DICOM affine, gives the
  position of that voxel's **centre**;
* a *voxel coordinate* is continuous; voxel ``i`` covers ``[i, i + 1)``, so its centre is ``i + 0.5``.
  Boxes are in voxel coordinates.

Hence ``world = affine(coordinate - 0.5)``, which is written here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

LPS_FROM_RAS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Multiplied with an affine from the left, it converts between RAS and LPS (DICOM, ITK), in both directions."""


_OFF_VOXELS = 0.1  # by which corners of two grids may differ: programs round headers differently


@dataclass(frozen=True, eq=False)
class Grid:
    """The shape of an array and its position in the patient.

    Attributes:
        shape: Number of voxels along D, H, W (slices, rows, columns as stored).
        affine_vox_to_ras: ``(4, 4)`` float64; columns follow D, H, W, rows are R, A, S in mm. It maps a voxel
            *index* to the position of the voxel's centre. May contain a shear (gantry tilt).
        spacing_known: False if the file gives no spacing (PNG); then the affine's unit is one pixel
            and :attr:`spacing_mm` is ``None``.

    Raises:
        ValueError: if the shape is empty or the affine is not an invertible, finite ``(4, 4)`` matrix.
    """

    shape: tuple[int, int, int]
    affine_vox_to_ras: FloatArray
    spacing_known: bool = True

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine_vox_to_ras, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a grid needs three positive extents D, H, W, got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"the affine must be a finite (4, 4) matrix, got {affine.tolist()}")
        if not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise ValueError(f"the affine's last row must be 0 0 0 1, got {affine[3].tolist()}")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / np.maximum(lengths, 1e-300))) < 1e-6:
            raise ValueError(f"the affine is singular: column lengths {lengths.tolist()} mm")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine_vox_to_ras", affine)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and self.spacing_known == other.spacing_known
            and np.array_equal(self.affine_vox_to_ras, other.affine_vox_to_ras)
        )

    @cached_property
    def voxel_size(self) -> tuple[float, float, float]:
        """Lengths of the affine's D, H, W columns: mm, or pixels where the spacing is unknown."""
        d, h, w = (float(x) for x in np.linalg.norm(self.affine_vox_to_ras[:3, :3], axis=0))
        return d, h, w

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Distance between voxel centres along D, H, W in mm; ``None`` if the file does not give it."""
        return self.voxel_size if self.spacing_known else None

    @cached_property
    def voxel_volume_unit3(self) -> float:
        """Volume of one voxel, the determinant of the affine: mm³, or pixels where the spacing is unknown."""
        return float(abs(np.linalg.det(self.affine_vox_to_ras[:3, :3])))

    @property
    def affine_xyz_to_ras(self) -> FloatArray:
        """``(4, 4)``: the affine for NIfTI's index order x, y, z (array axes W, H, D) to R, A, S in mm."""
        return np.asarray(self.affine_vox_to_ras[:, [2, 1, 0, 3]])

    def index_to_ras(self, index_vox: ArrayLike) -> FloatArray:
        """World position (R, A, S in mm) of voxel centres; ``index_vox`` is ``(..., 3)`` voxel indices D, H, W."""
        index = np.asarray(index_vox, dtype=np.float64)
        return np.asarray(index @ self.affine_vox_to_ras[:3, :3].T + self.affine_vox_to_ras[:3, 3])

    def coordinate_to_ras(self, coordinate_vox: ArrayLike) -> FloatArray:
        """World position (R, A, S in mm) of continuous voxel coordinates ``(..., 3)``, e.g. corners of boxes."""
        return self.index_to_ras(np.asarray(coordinate_vox, dtype=np.float64) - 0.5)

    def ras_to_coordinate(self, point_ras_mm: ArrayLike) -> FloatArray:
        """Continuous voxel coordinates D, H, W of world points ``(..., 3)`` in mm; inverse of the above."""
        offset = np.asarray(point_ras_mm, dtype=np.float64) - self.affine_vox_to_ras[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine_vox_to_ras[:3, :3]).T + 0.5)


def same_grid(one: Grid, other: Grid) -> bool:
    """True if voxels of equal index coincide in both grids; without known spacing only the shapes are compared."""
    if one.shape != other.shape:
        return False
    if not (one.spacing_known and other.spacing_known):
        return True
    corners = np.array(list(product(*((0, n - 1) for n in one.shape))), np.float64)
    apart = np.abs(one.ras_to_coordinate(other.index_to_ras(corners)) - 0.5 - corners)
    return bool(apart.max() <= _OFF_VOXELS)


def pixel_grid(shape: tuple[int, int, int]) -> Grid:
    """The grid of an image without geometry: columns run to the patient's left, rows to the back.

    This is how radiological images are displayed; the unit is one pixel and ``spacing_mm`` is ``None``.
    """
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[3, 3] = 1.0  # D runs up
    affine[1, 1] = affine[0, 2] = -1.0  # H runs to the back, W to the left
    return Grid(shape, affine, spacing_known=False)

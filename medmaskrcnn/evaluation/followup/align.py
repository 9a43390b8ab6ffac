"""Alignment of two scans of the same patient, which maps points of one to the other.

Scans that share a Frame of Reference UID (0020,0052) share their coordinates. Others are aligned by rigid
registration: Mattes' mutual information of the whole scans (Mattes et al. 2003, doi:10.1109/TMI.2003.809072),
coarse to fine, with SimpleITK. A body that bends or breathes is not rigid; the agreement of the scans is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid
from medmaskrcnn.structures.volume import Volume

_SHRINK = (4, 2, 1)
_SMOOTH_MM = (4.0, 2.0, 1.0)
_SPACING_MM = 3.0  # finer spacing takes longer and gives no accuracy that matching needs
_BINS = 48
_SAMPLES = 0.25
_SEED = 1
_OUTSIDE = -1.0
POOR_CORRELATION = 0.5
"""Correlation of the aligned scans' values below which the alignment is doubtful."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Transform from one scan's world coordinates to another's.

    Attributes:
        matrix_ras: ``(4, 4)``: R, A, S in mm of the moving scan to those of the fixed one.
        method: ``"frame of reference"`` or ``"rigid registration"``.
        correlation: Of the two scans' values where they overlap, -1..1; ``None`` without registration.
    """

    matrix_ras: FloatArray
    method: str
    correlation: float | None = None

    @property
    def is_poor(self) -> bool:
        """Whether the aligned scans do not look alike: matches are then doubtful."""
        return self.correlation is not None and self.correlation < POOR_CORRELATION

    def to_fixed(self, points_ras_mm: FloatArray) -> FloatArray:
        """Points ``(..., 3)`` of the moving scan in the fixed scan's world."""
        return np.asarray(points_ras_mm @ self.matrix_ras[:3, :3].T + self.matrix_ras[:3, 3])

    def to_moving(self, points_ras_mm: FloatArray) -> FloatArray:
        """The inverse of :meth:`to_fixed`."""
        inverse = np.linalg.inv(self.matrix_ras)
        return np.asarray(points_ras_mm @ inverse[:3, :3].T + inverse[:3, 3])


SAME_FRAME = Alignment(np.eye(4), "frame of reference")


def align_rigidly(moving: Volume, fixed: Volume) -> Alignment:
    """Register two scans.

    Args:
        moving: The scan whose points are to be mapped.
        fixed: The scan whose world they are mapped to.

    Raises:
        ValueError: if a scan's spacing is unknown or it is a single slice.
    """
    for volume in (moving, fixed):
        if volume.spacing_mm is None or min(volume.grid.shape) < 2:
            raise ValueError("only volumes of known spacing can be registered; give scans with a frame of reference")
    still, moves = _image(fixed), _image(moving)
    transform = _registered(still, moves)
    # ITK's transform maps points of the fixed image to the moving one, in LPS.
    matrix_lps = np.eye(4)
    matrix_lps[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix_lps[:3, 3] = shift + centre - matrix_lps[:3, :3] @ centre
    to_moving = LPS_FROM_RAS @ matrix_lps @ LPS_FROM_RAS
    to_fixed = np.asarray(np.linalg.inv(to_moving), dtype=np.float64)
    return Alignment(to_fixed, "rigid registration", _correlation(still, moves, transform))


def _image(volume: Volume) -> sitk.Image:
    """First channel as an ITK image, with voxels no finer than the registration needs."""
    steps = [max(1, int(_SPACING_MM / size)) for size in volume.grid.voxel_size]
    array = volume.array[0][:: steps[0], :: steps[1], :: steps[2]].astype(np.float32)
    affine = LPS_FROM_RAS @ volume.grid.affine_vox_to_ras @ np.diag([*steps, 1.0])
    array = np.nan_to_num(array)
    image = sitk.GetImageFromArray(array - array.min())  # its centre of mass needs values from 0 up
    columns = affine[:3, [2, 1, 0]]  # ITK's order is W, H, D
    spacing = np.linalg.norm(columns, axis=0)
    # Gantry tilt gives a shear, which ITK images cannot represent: the nearest rotation is enough for registration.
    u, _, v = np.linalg.svd(columns / spacing)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection((u @ v).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _registered(fixed: sitk.Image, moving: sitk.Image) -> sitk.Euler3DTransform:
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums in one order: the same scans give the same matrix
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLES, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200, gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_SHRINK)
    method.SetSmoothingSigmasPerLevel(_SMOOTH_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=True)
    result = method.Execute(fixed, moving)
    is_composite = result.GetTransformEnum() == sitk.sitkComposite
    return sitk.Euler3DTransform(sitk.CompositeTransform(result).GetNthTransform(0) if is_composite else result)


def _correlation(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    laid_over = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, _OUTSIDE)
    a, b = sitk.GetArrayViewFromImage(fixed).ravel(), sitk.GetArrayViewFromImage(laid_over).ravel()
    inside = b >= 0
    if np.count_nonzero(inside) < 2 or a[inside].std() == 0 or b[inside].std() == 0:
        return 0.0
    return float(np.corrcoef(a[inside], b[inside])[0, 1])


def covers(grid: Grid, point_ras_mm: FloatArray) -> bool:
    """Whether a scan contains a point ``(3,)`` of its world (R, A, S in mm)."""
    place = grid.ras_to_coordinate(point_ras_mm)
    return bool((place >= 0).all() and (place <= np.asarray(grid.shape)).all())

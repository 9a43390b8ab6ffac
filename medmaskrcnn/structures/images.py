"""Arrays on a grid as images of the libraries that people hold scans in: nibabel and SimpleITK.

nibabel's and NIfTI's axes x, y, z are the array's W, H, D: the affine is the grid's with its columns in that order,
nothing else. SimpleITK takes the array as it is, and the geometry in LPS. What a NIfTI header says about the affine
(nifti1.h, "3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE"):

===================  =====================  ==================  =====
grid                 sform_code             qform_code          units
===================  =====================  ==================  =====
in the scanner       1, scanner             1, scanner          mm
with a shear         1, scanner             0, unknown; empty   mm
no known spacing     2, aligned to another  0, unknown; empty   none
===================  =====================  ==================  =====

With an sform_code of 0 for an unknown spacing, readers would discard the affine and each would use its own default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid

if TYPE_CHECKING:  # both take long to import, and whoever saves or loads results needs neither
    import nibabel as nib
    import SimpleITK as sitk

_SHEAR_COSINE = 1e-5
"""Columns of the affine whose cosine is below this count as right-angled: float32 headers are no better."""

_UNKNOWN, _SCANNER, _ALIGNED = 0, 1, 2  # NIFTI_XFORM_UNKNOWN, _SCANNER_ANAT, _ALIGNED_ANAT
_QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_DESCRIPTION_BYTES = 79


def nibabel_image(array: NDArray[Any], grid: Grid, description: str = "") -> nib.Nifti1Image:
    """A NIfTI-1 image in memory.

    Args:
        array: ``(D, H, W)`` or ``(C, D, H, W)``; becomes x, y, z = W, H, D, and C last, without a copy.
        grid: Its grid; goes into the sform, and into the qform where that can hold it.
        description: At most 79 bytes for the header's ``descrip``.

    Raises:
        ValueError: if the array does not fit the grid or the description is too long.
    """
    import nibabel as nib

    _check(array, grid)
    if (length := len(description.encode())) > _DESCRIPTION_BYTES:
        raise ValueError(f"description must have at most {_DESCRIPTION_BYTES} bytes, got {length}")
    affine = grid.affine_xyz_to_ras
    image = nib.Nifti1Image(array.T, affine, dtype=array.dtype)
    header = image.header
    header["descrip"] = description.encode()
    header.set_xyzt_units("mm" if grid.spacing_known else "unknown")
    image.set_sform(affine, _SCANNER if grid.spacing_known else _ALIGNED)
    if grid.spacing_known and not _is_sheared(affine):
        image.set_qform(affine, _SCANNER)
    else:
        _clear_qform(header)
    return image


def sitk_image(array: NDArray[Any], grid: Grid) -> sitk.Image:
    """A SimpleITK image in memory, with spacing, origin and direction in LPS; a shear stands in the direction.

    Args:
        array: ``(D, H, W)``, or ``(C, D, H, W)`` for an image with C components; copied.
        grid: Its grid.

    Raises:
        ValueError: if the array does not fit the grid.
    """
    import SimpleITK as sitk

    _check(array, grid)
    several = array.ndim == 4
    image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1) if several else array, isVector=several)
    _, origin, spacing, direction = sitk_geometry(grid)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def sitk_geometry(grid: Grid) -> tuple[list[int], list[float], list[float], list[float]]:
    """Size, origin, spacing and direction of a grid as SimpleITK takes them: axes x, y, z, in LPS."""
    affine = LPS_FROM_RAS @ grid.affine_xyz_to_ras
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    direction = (affine[:3, :3] / sizes).flatten()
    return list(grid.shape[::-1]), affine[:3, 3].tolist(), sizes.tolist(), direction.tolist()


def _check(array: NDArray[Any], grid: Grid) -> None:
    if array.ndim not in (3, 4) or array.shape[-3:] != grid.shape:
        raise ValueError(f"array must have the grid's shape {grid.shape}, got {array.shape}")


def _clear_qform(header: nib.Nifti1Header) -> None:
    """Clear the rotation: nibabel fills in the one nearest to a sheared affine even where the code is 0."""
    header["qform_code"] = _UNKNOWN
    header["pixdim"][0] = 1
    for field in _QFORM_FIELDS:
        header[field] = 0


def _is_sheared(affine: FloatArray) -> bool:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR_COSINE)

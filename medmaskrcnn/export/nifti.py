"""NIfTI-1 files: scans and label maps on the scan's own grid, the same bytes each time they are written.

NIfTI's axes x, y, z are the array's W, H, D: the affine is the scan's with its columns in that order, nothing
else. A label map gives each voxel to one object, so larger objects are painted first and small ones stay
visible; overlaps are reported in ``result.json``, and ``instances.npz`` holds the complete masks.

What the header says about the affine (nifti1.h, "3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE"):

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

import gzip
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import paint_labels
from medmaskrcnn.structures.overlap import voxel_counts
from medmaskrcnn.system.files import make_folder, replacing

_SHEAR_COSINE = 1e-5
"""Columns of the affine whose cosine is below this count as right-angled: float32 headers are no better."""

_UNKNOWN, _SCANNER, _ALIGNED = 0, 1, 2  # NIFTI_XFORM_UNKNOWN, _SCANNER_ANAT, _ALIGNED_ANAT
_QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_DESCRIPTION_BYTES = 79
_SCAN_LEVEL, _LABELS_LEVEL = 4, 6
"""Level of gzip: at level 6 a scan takes three times as long and becomes 1 % smaller, a label map 26 %."""


def write_nifti(array: NDArray[Any], grid: Grid, path: Path | str, *, description: str = "") -> Path:
    """Write one scan or label map as ``.nii`` or ``.nii.gz``.

    Args:
        array: ``(D, H, W)`` or ``(C, D, H, W)``; stored with the same dtype, as NIfTI's i, j, k = W, H, D and C last
            (nothing is resampled).
        grid: Its grid; goes into the sform, and into the qform where that can hold it.
        path: The file; an existing one is replaced once the new one is complete. A missing folder is created.
        description: At most 79 bytes for the header's ``descrip``.

    Raises:
        ValueError: if the array does not fit the grid or the description is too long.
        OutputError: if the file cannot be written.
    """
    target = Path(path)
    image = _nifti_image(array, grid, description)
    make_folder(target.parent)
    with replacing(target) as temporary, temporary.open("wb") as stream:
        if target.suffix.lower() == ".gz":
            _write_gzipped(image, stream, _SCAN_LEVEL)
        else:
            image.to_stream(stream)
    return target


def label_map(instances: Instances) -> NDArray[np.integer]:
    """Paint instances into one array: the i-th gets the value i + 1, smaller ones overwrite larger ones.

    Returns:
        ``(D, H, W)`` uint16, or int32 where there are more than 65,535 instances; 0 is background.
    """
    dtype = np.uint16 if len(instances) <= np.iinfo(np.uint16).max else np.int32
    order = np.argsort(-voxel_counts(instances), kind="stable")
    return paint_labels([instances.masks[i] for i in order], instances.grid.shape, dtype, values=(order + 1).tolist())


def write_label_map(result: CaseResult, stream: IO[bytes]) -> None:
    """Write the result's instances as gzipped NIfTI-1; the same result gives the same bytes.

    The header's description names the software and states if the model was used out of its domain.

    Args:
        result: The result; voxel values are the ids 1..n of :attr:`CaseResult.kept`.
        stream: Binary stream to write to.
    """
    image = _nifti_image(label_map(result.instances), result.candidates.grid, _description(result))
    image.header.set_intent("label", name="instances")
    _write_gzipped(image, stream, _LABELS_LEVEL)


def _nifti_image(array: NDArray[Any], grid: Grid, description: str) -> nib.Nifti1Image:
    if array.ndim not in (3, 4) or array.shape[-3:] != grid.shape:
        raise ValueError(f"array must have the grid's shape {grid.shape}, got {array.shape}")
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


def _clear_qform(header: nib.Nifti1Header) -> None:
    """Clear the rotation: nibabel fills in the one nearest to a sheared affine even where the code is 0."""
    header["qform_code"] = _UNKNOWN
    header["pixdim"][0] = 1
    for field in _QFORM_FIELDS:
        header[field] = 0


def _write_gzipped(image: nib.Nifti1Image, stream: IO[bytes], level: int) -> None:
    """Write gzip without file name and date, so that equal images give equal bytes."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=level, mtime=0) as packed:
        image.to_stream(packed)


def _is_sheared(affine: FloatArray) -> bool:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR_COSINE)


def _description(result: CaseResult) -> str:
    stamp = "OUT OF DOMAIN; " if result.record.out_of_domain else ""
    text = f"{stamp}{result.record.software}; research use only"
    return text.encode("ascii", "replace").decode()[:_DESCRIPTION_BYTES]

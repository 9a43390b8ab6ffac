"""``labels.nii.gz``: the instances as a label map on the scan's own grid.

NIfTI's axes x, y, z are the array's W, H, D: the affine is the scan's with its columns in that order, nothing
else. A label map gives each voxel to one object, so larger objects are painted first and small ones stay
visible; what overlaps is told in ``result.json`` and kept whole in ``instances.npz``.
"""

from __future__ import annotations

import gzip
from typing import IO

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import paint_labels
from medmaskrcnn.structures.overlap import voxel_counts

_SHEAR_COSINE = 1e-5
"""Columns of the affine whose cosine is below this count as right-angled: float32 headers are no better."""

_SCANNER, _ALIGNED = 1, 2  # NIfTI xform codes: in the scanner's coordinates, in some other ones
_COMPRESSION = 6


def label_map(instances: Instances) -> NDArray[np.integer]:
    """Paint instances into one array: the i-th gets the value i + 1, larger ones lie below smaller ones.

    Returns:
        ``(D, H, W)`` uint16, or int32 where there are more than 65,535 instances; 0 is background.
    """
    dtype = np.uint16 if len(instances) <= np.iinfo(np.uint16).max else np.int32
    order = np.argsort(-voxel_counts(instances), kind="stable")
    return paint_labels([instances.masks[i] for i in order], instances.grid.shape, dtype, values=(order + 1).tolist())


def write_label_map(result: CaseResult, stream: IO[bytes]) -> None:
    """Write the result's instances as gzipped NIfTI-1; the same result gives the same bytes.

    sform holds the affine always, qform where it can (it knows no shear). The header's description names the
    software, and says so where the model was used out of its domain.

    Args:
        result: The result; voxel values are the ids 1..n of :attr:`CaseResult.kept`.
        stream: Binary stream to write to.
    """
    grid = result.candidates.grid
    affine = grid.affine_xyz_to_ras
    image = nib.Nifti1Image(label_map(result.instances).T, affine)
    code = _SCANNER if grid.spacing_known else _ALIGNED
    image.set_sform(affine, code)
    if _is_sheared(affine):
        image.set_qform(None, 0)
    else:
        image.set_qform(affine, code)
    header = image.header
    header.set_xyzt_units("mm" if grid.spacing_known else "unknown")
    header.set_intent("label", name="instances")
    header["descrip"] = _description(result).encode("ascii", "replace")
    # no name and no date in the gzip header
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=_COMPRESSION, mtime=0) as packed:
        image.to_stream(packed)


def _is_sheared(affine: FloatArray) -> bool:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR_COSINE)


def _description(result: CaseResult) -> str:
    stamp = "OUT OF DOMAIN; " if result.record.out_of_domain else ""
    return f"{stamp}{result.record.software}; research use only"[:79]

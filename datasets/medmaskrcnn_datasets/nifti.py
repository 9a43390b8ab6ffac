"""Scans and label maps as NIfTI files, the same bytes each time they are written."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.system.files import write_bytes

GZIP_LEVEL = 4
_SHEAR_TOLERANCE = 1e-6


def write_nifti(array: NDArray[Any], grid: Grid, path: Path | str, *, description: str = "") -> Path:
    """Write one scan or label map as ``.nii`` or ``.nii.gz``.

    Args:
        array: ``(D, H, W)``; stored with the same dtype, as NIfTI's i, j, k = W, H, D (nothing is resampled).
        grid: Its grid; goes into sform, and into qform where it has no shear.
        path: Where to; a file that is there is replaced once the new one is complete.
        description: At most 79 characters for the header's ``descrip``.

    Raises:
        ValueError: if the array does not fit the grid or the description is too long.
        OutputError: if the file cannot be written.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array must have the grid's shape {grid.shape}, got {array.shape}")
    if len(description.encode()) > 79:
        raise ValueError(f"description must have at most 79 bytes, got {len(description.encode())}")
    affine = grid.affine_xyz_to_ras
    image = nibabel.Nifti1Image(np.transpose(array), affine, dtype=array.dtype)
    image.header["descrip"] = description.encode()
    image.header.set_xyzt_units("mm" if grid.spacing_known else "unknown")
    image.set_sform(affine, code=1)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    straight = np.abs(axes.T @ axes - np.eye(3)).max() < _SHEAR_TOLERANCE
    image.set_qform(affine, code=1 if straight else 0)
    return save_image(image, path)


def save_image(image: nibabel.Nifti1Image, path: Path | str) -> Path:
    """Write a NIfTI image that is in memory, compressed if the name ends in ``.gz``; equal images, equal bytes.

    Raises:
        OutputError: if the file cannot be written.
    """
    content = image.to_bytes()
    return write_bytes(path, _gzip(content) if str(path).endswith(".gz") else content)


def _gzip(content: bytes) -> bytes:
    """Compressed without name and time, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed:
        packed.write(content)
    return buffer.getvalue()

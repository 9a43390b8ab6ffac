"""Label files of one case: read and checked against the image's header, or written beside the manifest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medmaskrcnn.data.case_labels import IgnoredRegion
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.labels.label_maps import LARGEST_VALUE, whole_numbers
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.io.labels.label_volume import read_label_volume
from medmaskrcnn.io.scan_info import ScanInfo
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.system.files import write_bytes
from medmaskrcnn_datasets.objects import packed_maps

_SAME_SPACING = 1e-3  # relative: headers of different programs round differently


def read_label_map(case: str, image: Path, label: Path) -> tuple[NDArray[np.integer], Grid]:
    """A label map ``(D, H, W)`` and its grid, checked against the image's header.

    Raises:
        ReadError: if a file is missing or damaged, their sizes or voxels differ, or the map does not hold integers.
    """
    scan = describe_image(case, image)
    try:
        volume = read_label_volume(label)
    except ReadError as error:
        raise ReadError(f"case {case!r}: cannot read the label map: {error.reason}") from error
    if volume.array.shape[0] != 1:
        raise ReadError(f"case {case!r}: {label} has {volume.array.shape[0]} channels; a label map has one")
    if scan.shape is not None and scan.shape[1:] != volume.grid.shape:
        raise ReadError(
            f"case {case!r}: image {scan.shape[1:]} and label {volume.grid.shape} differ in shape (D, H, W): {label}"
        )
    if (
        scan.spacing_mm
        and volume.spacing_mm
        and not np.allclose(scan.spacing_mm, volume.spacing_mm, rtol=_SAME_SPACING)
    ):
        raise ReadError(f"case {case!r}: image and label differ in the size of their voxels: {label}")
    values = whole_numbers(volume.array[0])
    if values is None:
        raise ReadError(f"case {case!r}: the label map must hold whole numbers from 0 to {LARGEST_VALUE:,}: {label}")
    return values, volume.grid


def describe_image(case: str, image: Path) -> ScanInfo:
    """The information in the image's header.

    Raises:
        ReadError: if it cannot be read.
    """
    try:
        return describe(image)[0]
    except ReadError as error:
        raise ReadError(f"case {case!r}: cannot read the image: {error.reason}") from error


def write_label_maps(
    objects: Sequence[LabelledObject | IgnoredRegion], grid: Grid, stem: Path
) -> tuple[tuple[Path, ...], tuple[ManifestInstance, ...]]:
    """Write objects as label maps: PNG for a 2D image without spacing, else NIfTI.

    Args:
        objects: Objects and regions to ignore, on the grid; they may overlap.
        grid: The scan's grid.
        stem: Folder and prefix of the file names.

    Raises:
        OutputError: if a file cannot be written.
        ValueError: if there are more objects than a map can hold.
    """
    maps, instances = packed_maps(objects, grid.shape)
    picture = grid.shape[0] == 1 and not grid.spacing_known
    paths = []
    for number, values in enumerate(maps):
        name = f"{stem.name}_instances{f'_{number}' if number else ''}"
        if picture:
            buffer = io.BytesIO()
            Image.fromarray(values[0]).save(buffer, format="PNG")
            paths.append(write_bytes(stem.with_name(f"{name}.png"), buffer.getvalue()))
        else:
            paths.append(write_nifti(values, grid, stem.with_name(f"{name}.nii.gz")))
    return tuple(paths), instances

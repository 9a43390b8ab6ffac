"""NIfTI-1 files: scans and label maps on the scan's own grid, the same bytes each time they are written.

What the header says about geometry: :mod:`medmaskrcnn.structures.images`. A label map gives each voxel to one object;
overlaps are reported in ``result.json``, and ``instances.npz`` holds the complete masks.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.images import nibabel_image
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import label_map
from medmaskrcnn.structures.overlap import voxel_counts
from medmaskrcnn.system.files import make_folder, replacing

if TYPE_CHECKING:
    import nibabel as nib

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
    image = nibabel_image(array, grid, description)
    make_folder(target.parent)
    with replacing(target) as temporary, temporary.open("wb") as stream:
        if target.suffix.lower() == ".gz":
            _write_gzipped(image, stream, _SCAN_LEVEL)
        else:
            image.to_stream(stream)
    return target


def covered_voxels(instances: Instances) -> tuple[str, ...]:
    """What a label map of overlapping instances loses, one sentence for each that others cover."""
    left = np.bincount(label_map(instances).ravel(), minlength=len(instances) + 1)[1:]
    whole = voxel_counts(instances)
    names = instances.class_names
    return tuple(
        f"In the label map, where each voxel belongs to one object, {names[instances.labels[i]]} (object {i + 1}) "
        f"keeps {left[i]:,} of its {whole[i]:,} voxels: others cover it. SEG, COCO JSON and npz hold all of them."
        for i in np.flatnonzero(left < whole).tolist()
    )


def write_label_map(result: CaseResult, stream: IO[bytes]) -> None:
    """Write the result's instances as gzipped NIfTI-1; the same result gives the same bytes.

    The header's description names the software and states if the model was used out of its domain.

    Args:
        result: The result; voxel values are the ids 1..n of :attr:`CaseResult.kept`.
        stream: Binary stream to write to.
    """
    image = nibabel_image(label_map(result.instances), result.candidates.grid, _description(result))
    image.header.set_intent("label", name="instances")
    _write_gzipped(image, stream, _LABELS_LEVEL)


def _write_gzipped(image: nib.Nifti1Image, stream: IO[bytes], level: int) -> None:
    """Write gzip without file name and date, so that equal images give equal bytes."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=level, mtime=0) as packed:
        image.to_stream(packed)


def _description(result: CaseResult) -> str:
    stamp = "OUT OF DOMAIN; " if result.record.out_of_domain else ""
    text = f"{stamp}{result.record.software}; research use only"
    return text.encode("ascii", "replace").decode()[:_DESCRIPTION_BYTES]

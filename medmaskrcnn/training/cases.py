"""A labelled case as the network will see it: the prepared image, and each object's occupancy cropped to its box.

Labels are brought to the network's grid object by object with the image's own interpolation, so a voxel that an
object half fills holds one half: boundaries are learnt where they lie, not where a nearest voxel puts them.
Objects may overlap (a tumour in a liver), which a resampled label map could not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medmaskrcnn.config import PreprocessSettings
from medmaskrcnn.preprocess.prepare import prepare
from medmaskrcnn.preprocess.resize import resize_matrix
from medmaskrcnn.training.labels import read_case
from medmaskrcnn.training.manifest import Manifest, ManifestCase

_STRAY_SHARE = 0.05  # of the largest island's voxels
_FULL = 255  # occupancy is kept as 0..255 in one byte


@dataclass(frozen=True, eq=False)
class Occupancy:
    """One object on the network's grid.

    Attributes:
        label: Class index.
        start: Voxel index D, H, W of the crop's first voxel.
        crop: ``(d, h, w)`` uint8, 255 where the object fills the voxel.
    """

    label: int
    start: tuple[int, int, int]
    crop: Tensor


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """Image ``(C, D, H, W)`` float16 and its objects."""

    id: str
    image: Tensor
    objects: tuple[Occupancy, ...]


def load_case_for_training(
    manifest: Manifest,
    case: ManifestCase,
    settings: PreprocessSettings,
    *,
    class_names: Sequence[str] | None = None,
) -> LabelledCase:
    """Read and prepare one case of a manifest.

    Args:
        manifest: The manifest.
        case: The case.
        settings: The model's preprocessing.
        class_names: The model's classes, in its order (default: the manifest's); objects of others are left out.

    Raises:
        ReadError: if image and label map cannot be read, do not lie on one grid, or the labels are no whole numbers.
    """
    scan = read_case(manifest, case)
    prepared = prepare(scan.volume, settings)
    before, after = scan.volume.grid.shape, tuple(prepared.tensor.shape[1:])
    turned = [before[axis] for axis in prepared.axes.order]
    matrices = [resize_matrix(a, b, antialias=settings.antialias) for a, b in zip(turned, after, strict=True)]
    classes = {name: i for i, name in enumerate(class_names or manifest.class_names)}
    objects = []
    for one in scan.objects:
        if one.class_name in classes:
            start = prepared.axes.apply_start(one.start, one.mask.shape, before)
            mask = np.ascontiguousarray(prepared.axes.apply(one.mask))
            objects.append(Occupancy(classes[one.class_name], *_occupancy(start, _without_strays(mask), matrices)))
    return LabelledCase(case.id, prepared.tensor.half(), tuple(objects))


def _occupancy(
    start: tuple[int, int, int], mask: NDArray[np.bool_], matrices: list[Tensor]
) -> tuple[tuple[int, int, int], Tensor]:
    """First voxel and 0..255 crop, on the network's grid, of an object whose ``mask`` begins at ``start``."""
    crop, first_voxels = torch.from_numpy(mask.astype(np.float32)), []
    for axis, (matrix, begin) in enumerate(zip(matrices, start, strict=True)):
        columns = matrix[:, begin : begin + mask.shape[axis]]
        rows = torch.nonzero(columns.sum(dim=1)).flatten()
        first, last = int(rows[0]), int(rows[-1]) + 1
        first_voxels.append(first)
        crop = torch.tensordot(columns[first:last], crop, dims=([1], [axis])).movedim(0, axis)
    depth, height, width = first_voxels
    return (depth, height, width), (crop * _FULL).round().clamp(0, _FULL).to(torch.uint8).contiguous()


def _without_strays(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without islands far smaller than its largest: slips of the pen, which would blow up the box."""
    islands, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(islands.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _STRAY_SHARE * sizes.max())[islands] & mask)


def dense_occupancy(case: LabelledCase, start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Objects that reach into a window of the case.

    Args:
        case: The case.
        start: First voxel D, H, W of the window; may lie outside the image.
        shape: Its extent.

    Returns:
        Labels ``(N,)`` int64 and occupancy ``(N, *shape)`` uint8, 255 where the object fills the voxel.
    """
    labels, masks = [], []
    for item in case.objects:
        low = [max(s, o) for s, o in zip(start, item.start, strict=True)]
        high = [min(s + n, o + m) for s, n, o, m in zip(start, shape, item.start, item.crop.shape, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            continue
        target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        source = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, item.start, strict=True))
        mask = torch.zeros(shape, dtype=torch.uint8)
        mask[target] = item.crop[source]
        labels.append(item.label)
        masks.append(mask)
    stacked = torch.stack(masks) if masks else torch.zeros((0, *shape), dtype=torch.uint8)
    return torch.tensor(labels, dtype=torch.int64), stacked

"""Detections with boxes and masks in the turned scan's voxels, and their conversion to instances of the scan.

*Turned* means that the axes have the network's order and direction while the voxels are still the scan's own. Masks
are pasted from the mask head's probabilities directly into these voxels, so that their outline is as fine as the scan
allows and no label map is ever resampled. Turning back is exact and is the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, Removal, empty_instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_kernels import mask_windows, paste_masks


@dataclass(frozen=True, eq=False)
class Detection:
    """One object in the turned scan.

    Attributes:
        label: Class index; 0 is the first class.
        score: 0..1.
        box: ``(6,)`` float32, minima D, H, W, then maxima, voxel coordinates.
        mask: Cropped tightly to the object.
        removed: Why it is not in the result, if a step removed it.
    """

    label: int
    score: float
    box: NDArray[np.float32]
    mask: Mask
    removed: Removal = Removal.NONE


def paste_detections(
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor,
    probabilities: Tensor | None,
    *,
    shape: Sequence[int],
    threshold: float,
    mask_boxes: Tensor | None = None,
) -> list[Detection]:
    """Convert the network's output to detections with voxel masks.

    Args:
        boxes: ``(N, 2S)`` float32 in voxels of an array of ``shape``.
        labels: ``(N,)``.
        scores: ``(N,)``.
        probabilities: ``(N, *(M,) * S)``; if ``None`` (no mask head), each mask fills its box.
        shape: ``(D, H, W)`` or, for one slice, ``(H, W)``.
        threshold: A voxel belongs to the object if its probability is at least this.
        mask_boxes: ``(N, 2S)``, where the masks cover more than the boxes; each object's box is then that of its mask.

    Returns:
        N objects in the same order; for a single slice they have ``D == 1`` and start at slice 0.
    """
    regions, dims = boxes if mask_boxes is None else mask_boxes, len(shape)
    windows = mask_windows(regions, tuple(shape))
    if probabilities is None:
        crops = [np.ones(extent, dtype=np.bool_) for extent in (windows[:, dims:] - windows[:, :dims]).tolist()]
    else:
        crops = [crop.numpy() for crop in paste_masks(probabilities, regions, windows, threshold=threshold)]
    corners, starts = boxes.numpy().astype(np.float32), windows[:, :dims].numpy()
    if dims == 2:
        crops = [crop[None] for crop in crops]
        corners = np.insert(corners, (0, 2), (0, 1), axis=1)  # the one slice: 0 to 1
        starts = np.insert(starts, 0, 0, axis=1)
    rows = zip(labels.tolist(), scores.tolist(), corners, starts, crops, strict=True)
    found = [Detection(label, score, box, Mask(start, crop).tight()) for label, score, box, start, crop in rows]
    return found if mask_boxes is None else [_boxed_by_mask(one) for one in found]


def _boxed_by_mask(one: Detection) -> Detection:
    """The detection with the box of its mask; unchanged if that is empty."""
    if one.mask.is_empty:
        return one
    return replace(one, box=np.array([*one.mask.start, *one.mask.end], dtype=np.float32))


def join_detections(parts: Sequence[Detection], *, score: float) -> Detection:
    """Join several pieces to one object: the union of their masks and boxes; all else is that of the first.

    Args:
        parts: At least one piece.
        score: Score of the joined object.
    """
    boxes = np.stack([part.box for part in parts])
    box = np.concatenate([boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)])
    return replace(parts[0], score=score, box=box, mask=parts[0].mask.union(*(part.mask for part in parts[1:])))


def to_instances(
    detections: Sequence[Detection],
    *,
    grid: Grid,
    class_names: tuple[str, ...],
    turned_shape: tuple[int, ...],
    axes: AxisMap,
) -> Instances:
    """Convert objects of the turned scan to instances of the scan, by descending score (ties in the given order)."""
    if not detections:
        return empty_instances(grid, class_names)
    ordered = sorted(detections, key=lambda one: -one.score)
    masks = [Mask.empty() if one.mask.is_empty else axes.undo_mask(one.mask, turned_shape) for one in ordered]
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([one.label for one in ordered], dtype=np.int64),
        scores=np.array([one.score for one in ordered], dtype=np.float32),
        boxes=axes.undo_boxes(np.stack([one.box for one in ordered]), turned_shape).astype(np.float32),
        masks=tuple(masks),
        removed=np.array([one.removed for one in ordered], dtype=np.uint8),
    )

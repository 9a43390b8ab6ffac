"""What the network found, on its way back to the scan: boxes and masks in the turned scan's voxels.

*Turned* means: axes in the network's order and direction, voxels still the scan's own. The masks are pasted straight
into these voxels from the mask head's probabilities, so their outline is as fine as the scan allows, and no label map
is ever resampled. Turning back is exact and comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import BoolArray, Instances, empty_instances, tight_crop
from medmaskrcnn_kernels import mask_windows, paste_masks


@dataclass(frozen=True, eq=False)
class Found:
    """One object in the turned scan.

    Attributes:
        label: Class index, 0 is the first.
        score: 0..1.
        box: ``(6,)`` float32, minima D, H, W, then maxima, voxel coordinates.
        start: Voxel index of the mask crop's first voxel.
        mask: Boolean crop ``(d, h, w)``, tight around the object.
    """

    label: int
    score: float
    box: NDArray[np.float32]
    start: tuple[int, int, int]
    mask: BoolArray

    @property
    def end(self) -> tuple[int, int, int]:
        """Voxel index of the mask crop's last voxel, plus one."""
        d, h, w = (a + n for a, n in zip(self.start, self.mask.shape, strict=True))
        return d, h, w


def paste(
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor,
    probabilities: Tensor | None,
    *,
    shape: Sequence[int],
    threshold: float,
) -> list[Found]:
    """Turn detections into objects with masks of voxels.

    Args:
        boxes: ``(N, 2S)`` float32 in voxels of an array of ``shape``.
        labels: ``(N,)``.
        scores: ``(N,)``.
        probabilities: ``(N, *(M,) * S)``; ``None`` (no mask head) fills each box.
        shape: ``(D, H, W)`` or, for one slice, ``(H, W)``.
        threshold: A voxel belongs to the object where its probability reaches this.

    Returns:
        N objects in the same order; those of one slice have ``D == 1`` and start at slice 0.
    """
    windows, dims = mask_windows(boxes, tuple(shape)), len(shape)
    if probabilities is None:
        masks = [np.ones(extent, dtype=np.bool_) for extent in (windows[:, dims:] - windows[:, :dims]).tolist()]
    else:
        masks = [crop.numpy() for crop in paste_masks(probabilities, boxes, windows, threshold=threshold)]
    corners, starts = boxes.numpy().astype(np.float32), windows[:, :dims].numpy()
    if dims == 2:
        masks = [mask[None] for mask in masks]
        corners = np.insert(corners, (0, 2), (0, 1), axis=1)  # the one slice: 0 to 1
        starts = np.insert(starts, 0, 0, axis=1)
    found = []
    for label, score, box, start, mask in zip(labels.tolist(), scores.tolist(), corners, starts, masks, strict=True):
        first, tight = tight_crop(mask, start)
        found.append(Found(label, score, box, first, tight))
    return found


def overlap_voxels(a: Found, b: Found, *, low: Sequence[int] | None = None, high: Sequence[int] | None = None) -> int:
    """Voxels that two objects share, of those inside the half-open window ``low`` .. ``high`` (default: anywhere)."""
    first = [max(x, y, z) for x, y, z in zip(a.start, b.start, low or a.start, strict=True)]
    last = [min(x, y, z) for x, y, z in zip(a.end, b.end, high or a.end, strict=True)]
    if any(lo >= hi for lo, hi in zip(first, last, strict=True)):
        return 0
    return int(np.count_nonzero(_part(a, first, last) & _part(b, first, last)))


def voxels_within(a: Found, low: Sequence[int], high: Sequence[int]) -> int:
    """Voxels of an object inside the half-open window ``low`` .. ``high``."""
    first = [max(x, y) for x, y in zip(a.start, low, strict=True)]
    last = [min(x, y) for x, y in zip(a.end, high, strict=True)]
    if any(lo >= hi for lo, hi in zip(first, last, strict=True)):
        return 0
    return int(np.count_nonzero(_part(a, first, last)))


def _part(a: Found, low: Sequence[int], high: Sequence[int]) -> BoolArray:
    return a.mask[tuple(slice(lo - s, hi - s) for lo, hi, s in zip(low, high, a.start, strict=True))]


def union(parts: Sequence[Found], *, score: float) -> Found:
    """One object from several pieces: union of masks and boxes, label of the first.

    Args:
        parts: At least one piece; each holds a voxel.
        score: Score of the whole.
    """
    low = [min(p.start[axis] for p in parts) for axis in range(3)]
    high = [max(p.end[axis] for p in parts) for axis in range(3)]
    mask = np.zeros([b - a for a, b in zip(low, high, strict=True)], dtype=np.bool_)
    for p in parts:
        mask[tuple(slice(s - a, s - a + n) for s, a, n in zip(p.start, low, p.mask.shape, strict=True))] |= p.mask
    boxes = np.stack([p.box for p in parts])
    box = np.concatenate([boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)])
    return Found(parts[0].label, score, box, (low[0], low[1], low[2]), mask)


def to_instances(
    found: Sequence[Found], *, grid: Grid, class_names: tuple[str, ...], turned_shape: tuple[int, ...], axes: AxisMap
) -> Instances:
    """Objects of the turned scan as instances of the scan itself, by falling score (ties in the given order)."""
    if not found:
        return empty_instances(grid, class_names)
    ordered = sorted(found, key=lambda f: -f.score)
    masks = [np.ascontiguousarray(axes.undo(f.mask)) for f in ordered]
    windows = np.array([[*f.start, *f.end] for f in ordered])
    starts = axes.undo_boxes(windows, turned_shape)[:, :3]
    starts[[not m.size for m in masks]] = 0
    return Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([f.label for f in ordered], dtype=np.int64),
        scores=np.array([f.score for f in ordered], dtype=np.float32),
        boxes=axes.undo_boxes(np.stack([f.box for f in ordered]), turned_shape).astype(np.float32),
        mask_starts=starts.astype(np.int64),
        masks=tuple(masks),
    )

"""Pastes masks into all windows in one launch, by the rule of ``paste.py``, voxel by voxel."""

from __future__ import annotations

from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

VOXELS = 1024
"""Voxels per program."""


@triton.jit
def _place(minimum, maximum, voxel, cells):
    """Lower cell, weight of the one above it, and whether the voxel's centre lies in the box, along one axis."""
    centre = voxel + 0.5
    inside = (centre >= minimum) & (centre < maximum)
    length = tl.where(maximum > minimum, maximum - minimum, 1.0)
    position = tl.div_rn(centre - minimum, length + centre * 0) * cells - 0.5
    position = tl.minimum(tl.maximum(position, 0.0), cells - 1.0)
    low = tl.floor(position)
    return low.to(tl.int32), position - low, inside


@triton.jit
def _paste(
    probabilities, boxes, windows, first_voxels, crops, cells0, cells1, cells2, DIMS: tl.constexpr, VOXELS: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    begin = tl.load(first_voxels + n)
    voxel = tl.program_id(1).to(tl.int64) * VOXELS + tl.arange(0, VOXELS)
    keep = voxel < tl.load(first_voxels + n + 1) - begin
    at = n * 2 * DIMS
    value = tl.zeros((VOXELS,), tl.float32)
    if tl.max(keep.to(tl.int32), 0) > 0:
        begin2, end2 = tl.load(windows + at + DIMS - 1), tl.load(windows + at + 2 * DIMS - 1)
        begin1, end1 = tl.load(windows + at + DIMS - 2), tl.load(windows + at + 2 * DIMS - 2)
        line = voxel // (end2 - begin2)
        low2, part2, inside2 = _place(
            tl.load(boxes + at + DIMS - 1), tl.load(boxes + at + 2 * DIMS - 1), begin2 + voxel % (end2 - begin2), cells2
        )
        low1, part1, inside1 = _place(
            tl.load(boxes + at + DIMS - 2), tl.load(boxes + at + 2 * DIMS - 2), begin1 + line % (end1 - begin1), cells1
        )
        low0, part0, inside = low1 * 0, part1 * 0, inside1 & inside2 & keep
        if DIMS == 3:
            plane = line // (end1 - begin1)
            low0, part0, inside0 = _place(
                tl.load(boxes + at), tl.load(boxes + at + 3), tl.load(windows + at) + plane, cells0
            )
            inside &= inside0
        for upper0 in tl.static_range(DIMS - 1):
            for upper1 in tl.static_range(2):
                for upper2 in tl.static_range(2):
                    cell0 = tl.minimum(low0 + upper0, cells0 - 1)
                    cell1 = tl.minimum(low1 + upper1, cells1 - 1)
                    cell2 = tl.minimum(low2 + upper2, cells2 - 1)
                    share = part0 if upper0 else 1.0 - part0
                    share *= part1 if upper1 else 1.0 - part1
                    share *= part2 if upper2 else 1.0 - part2
                    cell = ((n * cells0 + cell0) * cells1 + cell1) * cells2 + cell2
                    value += share * tl.load(probabilities + cell, mask=inside, other=0.0).to(tl.float32)
    tl.store(crops + begin + voxel, value, mask=keep)


def paste(probabilities: Tensor, boxes: Tensor, windows: Tensor) -> list[Tensor]:
    """Crops, each of its window's shape, float32; views of one buffer.

    Args:
        probabilities: ``(N, M, ..., M)``.
        boxes: ``(N, 2S)`` in voxels.
        windows: ``(N, 2S)`` int64, half-open; their values are fetched to the host once.
    """
    dims = boxes.shape[1] // 2
    shapes = [[w[dims + a] - w[a] for a in range(dims)] for w in windows.tolist()]
    sizes = [prod(s) for s in shapes]
    crops = torch.empty(sum(sizes), device=boxes.device)
    if crops.numel():
        first_voxels = torch.tensor([0, *sizes], device=boxes.device).cumsum(0)
        _paste[(len(sizes), triton.cdiv(max(sizes), VOXELS))](
            probabilities.contiguous(), boxes.float().contiguous(), windows.long().contiguous(), first_voxels, crops,
            *(1, *probabilities.shape[1:])[-3:], DIMS=dims, VOXELS=VOXELS,
        )  # fmt: skip
    return [crop.view(shape) for crop, shape in zip(crops.split(sizes), shapes, strict=True)]

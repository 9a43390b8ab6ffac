"""RoIAlign over a whole pyramid in one launch, 2D and 3D, for GPUs that Triton supports.

The separable form of ``separable.py``, with the channels side by side in memory. Forward, one program makes one row of
a box's bins (along the last axis) for some channels: rows of cells are read whole, weighted by the first axes' columns,
and one small product with the last axis' matrix makes the bins of them. Backward is the same with the matrices
transposed and is written from the cell's side: one program owns a row of cells, finds the boxes that read it, adds
their contributions in the boxes' order and writes once. So no atomics, no float32 copy of the gradient, and the same
bits each time. Coordinates, weights and sums are float32.

A row of ``boxes`` that is not a box, or names no image, gives zeros and reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

from medmaskrcnn_kernels.checks import box_rows
from medmaskrcnn_kernels.roi_align_portable import levels_of
from medmaskrcnn_kernels.triton_axis import (
    MOST_SAMPLES,
    column,
    lay_axis,
    pick,
    pick_map,
    read_corners,
    usable,
    weight,
)

Number = TypeVar("Number", int, float)

CELLS = 16
"""Cells of a row that are multiplied together; the least that ``tl.dot`` takes."""
CHANNELS = 128
"""Channels per program."""
WARPS = 8
"""Threads of one program in groups of 32 (AMD: 64): with fewer the backward kernel spills registers."""
PRECISION = "tf32x3" if torch.version.hip is None else "ieee"
"""How ``tl.dot`` multiplies float32: in three TF32 parts, good to about 2e-7, or plainly."""
BOXES_AT_ONCE = 64
"""Boxes that a backward program tests at once for reading its row."""


@triton.jit
def _forward(
    maps, sizes, scales, least_areas, boxes, batch_index, pooled, images, channels, ratio,
    stride_box, stride_channel, stride_bin,
    BINS0: tl.constexpr, BINS1: tl.constexpr, BINS2: tl.constexpr, DIMS: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_BINS: tl.constexpr, BLOCK_CELLS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    bin0, bin1 = row // BINS1, row % BINS1
    bin2 = tl.arange(0, BLOCK_BINS)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)

    low0, low1, low2, high0, high1, high2 = read_corners(boxes, n, DIMS)
    image = tl.load(batch_index + n).to(tl.int64)
    good = usable(low0, high0) & usable(low1, high1) & usable(low2, high2) & (image >= 0) & (image < images)
    level = tl.program_id(1) * 0
    for coarser in tl.static_range(len(least_areas)):
        level += ((high1 - low1) * (high2 - low2) >= least_areas[coarser]).to(tl.int32)
    size0, size1, size2 = pick(sizes, level, 0), pick(sizes, level, 1), pick(sizes, level, 2)
    start0, length0, samples0 = lay_axis(low0, high0, pick(scales, level, 0), BINS0, ratio, ALIGNED)
    start1, length1, samples1 = lay_axis(low1, high1, pick(scales, level, 1), BINS1, ratio, ALIGNED)
    start2, length2, samples2 = lay_axis(low2, high2, pick(scales, level, 2), BINS2, ratio, ALIGNED)
    if DIMS == 2:
        samples0 = 1
    good &= (samples0 <= MOST_SAMPLES) & (samples1 <= MOST_SAMPLES) & (samples2 <= MOST_SAMPLES)

    total = tl.zeros((BLOCK_BINS, BLOCK_CHANNELS), tl.float32)
    if good:
        table = pick_map(maps, level) + channel[None, :]
        first = tl.floor(tl.minimum(tl.maximum(start2, 0.0), size2 - 1.0)).to(tl.int32)
        last = tl.floor(tl.minimum(tl.maximum(start2 + BINS2 * length2, 0.0), size2 - 1.0)).to(tl.int32) + 1
        for begin in range(first, tl.minimum(last + 1, size2), BLOCK_CELLS):
            cell2 = begin + tl.arange(0, BLOCK_CELLS)
            matrix = weight(start2, length2, samples2, bin2[:, None], cell2[None, :], size2)
            matrix = tl.where((bin2 < BINS2)[:, None] & (cell2 < size2)[None, :], matrix, 0.0)
            read = (tl.max(matrix, 0) > 0)[:, None] & (channel < channels)[None, :]
            cells = tl.zeros((BLOCK_CELLS, BLOCK_CHANNELS), tl.float32)
            for number0 in range(2 * samples0):
                cell0, share0 = column(number0, start0, length0, samples0, bin0, size0)
                if share0 > 0:
                    for number1 in range(2 * samples1):
                        cell1, share1 = column(number1, start1, length1, samples1, bin1, size1)
                        if share1 > 0:
                            place = ((image * size0 + cell0) * size1 + cell1) * size2 + cell2
                            values = tl.load(table + place[:, None] * channels, mask=read, other=0.0)
                            cells += share0 * share1 * values.to(tl.float32)
            total = tl.dot(matrix, cells, total, input_precision=PRECISION)

    place = n * stride_box + (row * BINS2 + bin2)[:, None] * stride_bin + channel[None, :] * stride_channel
    keep = (bin2 < BINS2)[:, None] & (channel < channels)[None, :]
    tl.store(pooled + place, total.to(pooled.dtype.element_ty), mask=keep)


@triton.jit
def _touches(low, high, scale, bins: tl.constexpr, aligned: tl.constexpr, begin, end):
    """Whether boxes may read a cell of ``begin..end``; slightly generous, since the weights decide."""
    start, length, _ = lay_axis(low, high, scale, bins, 1, aligned)
    return (start < end + 1) & (start + bins * length > begin - 2)


@triton.jit
def _first_bin(start, length, cell, bins: tl.constexpr):
    """A bin at or before the first one that reads ``cell``."""
    guess = tl.floor((cell - 1 - start) / tl.maximum(length, 1e-6)) - 1
    return tl.where(length > 1e-6, tl.minimum(tl.maximum(guess, 0.0), bins), 0.0).to(tl.int32)


@triton.jit
def _bins_end(start, length, cell, bins: tl.constexpr):
    """One past a bin at or after the last one that reads ``cell``."""
    guess = tl.floor((cell + 1 - start) / tl.maximum(length, 1e-6)) + 2
    return tl.where(length > 1e-6, tl.minimum(tl.maximum(guess, 0.0), bins), bins * 1.0).to(tl.int32)


@triton.jit
def _backward(
    gradients, sizes, scales, first_programs, boxes, order, offsets, pulled, images, channels, ratio,
    BINS0: tl.constexpr, BINS1: tl.constexpr, BINS2: tl.constexpr, DIMS: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_BINS: tl.constexpr, BLOCK_CELLS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_BOXES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    level = tl.program_id(1) * 0
    own = program
    for coarser in tl.static_range(len(first_programs)):
        beyond = program >= first_programs[coarser]
        level += beyond.to(tl.int32)
        own = tl.where(beyond, program - first_programs[coarser], own)
    size0, size1, size2 = pick(sizes, level, 0), pick(sizes, level, 1), pick(sizes, level, 2)
    scale0, scale1, scale2 = pick(scales, level, 0), pick(scales, level, 1), pick(scales, level, 2)
    blocks = tl.cdiv(size2, BLOCK_CELLS)
    cell2 = (own % blocks).to(tl.int32) * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)
    begin2 = (own % blocks).to(tl.int32) * BLOCK_CELLS
    line = own // blocks
    cell1 = (line % size1).to(tl.int32)
    cell0 = (line // size1 % size0).to(tl.int32)
    image = line // size1 // size0

    bin2 = tl.arange(0, BLOCK_BINS)
    slot = tl.arange(0, BLOCK_BOXES)
    in_row = (bin2 < BINS2)[:, None] & (channel < channels)[None, :]
    total = tl.zeros((BLOCK_CELLS, BLOCK_CHANNELS), tl.float32)
    stop = tl.load(offsets + level * images + image + 1)
    for begin in range(tl.load(offsets + level * images + image), stop, BLOCK_BOXES):
        row = tl.load(order + begin + slot, mask=begin + slot < stop, other=0)
        low0, low1, low2, high0, high1, high2 = read_corners(boxes, row, DIMS)
        hit = begin + slot < stop
        hit &= _touches(low0, high0, scale0, BINS0, ALIGNED, cell0, cell0 + 1)
        hit &= _touches(low1, high1, scale1, BINS1, ALIGNED, cell1, cell1 + 1)
        hit &= _touches(low2, high2, scale2, BINS2, ALIGNED, begin2, begin2 + BLOCK_CELLS)
        nearest = tl.min(tl.where(hit, slot, BLOCK_BOXES))
        while nearest < BLOCK_BOXES:
            n = tl.load(order + begin + nearest)
            low0_, low1_, low2_, high0_, high1_, high2_ = read_corners(boxes, n, DIMS)
            start0, length0, samples0 = lay_axis(low0_, high0_, scale0, BINS0, ratio, ALIGNED)
            start1, length1, samples1 = lay_axis(low1_, high1_, scale1, BINS1, ratio, ALIGNED)
            start2, length2, samples2 = lay_axis(low2_, high2_, scale2, BINS2, ratio, ALIGNED)
            if DIMS == 2:
                samples0 = 1
            fine = (samples0 <= MOST_SAMPLES) & (samples1 <= MOST_SAMPLES) & (samples2 <= MOST_SAMPLES)
            samples2 = tl.where(fine, samples2, 0)
            end0 = tl.where(fine, _bins_end(start0, length0, cell0, BINS0), 0)
            bins = tl.zeros((BLOCK_BINS, BLOCK_CHANNELS), tl.float32)
            for bin0 in range(_first_bin(start0, length0, cell0, BINS0), end0):
                share0 = weight(start0, length0, samples0, bin0, cell0, size0)
                if share0 > 0:
                    for bin1 in range(
                        _first_bin(start1, length1, cell1, BINS1), _bins_end(start1, length1, cell1, BINS1)
                    ):
                        share1 = weight(start1, length1, samples1, bin1, cell1, size1)
                        if share1 > 0:
                            place = (((n * BINS0 + bin0) * BINS1 + bin1) * BINS2 + bin2)[:, None] * channels
                            pull = tl.load(pulled + place + channel[None, :], mask=in_row, other=0.0)
                            bins += share0 * share1 * pull.to(tl.float32)
            matrix = weight(start2, length2, samples2, bin2[None, :], cell2[:, None], size2)
            matrix = tl.where((bin2 < BINS2)[None, :], matrix, 0.0)
            total = tl.dot(matrix, bins, total, input_precision=PRECISION)
            nearest = tl.min(tl.where(hit & (slot > nearest), slot, BLOCK_BOXES))

    gradient = pick_map(gradients, level)
    place = (((image * size0 + cell0) * size1 + cell1) * size2 + cell2)[:, None] * channels + channel[None, :]
    keep = (cell2 < size2)[:, None] & (channel < channels)[None, :]
    tl.store(gradient + place, total.to(gradient.dtype.element_ty), mask=keep)


def align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    pooled: Tensor,
    *,
    scales: Sequence[tuple[float, ...]],
    least_areas: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> None:
    """Forward: fill ``pooled`` ``(N, C, *bins)``, channels last or contiguous.

    Args:
        maps: ``(B, C, *spatial)`` each; read with channels last, so others are copied first.
        boxes: ``(N, 2S)`` in voxels of the image.
        batch_index: ``(N,)`` integers.
        pooled: Result, of the maps' dtype.
        scales: Cells per voxel along each axis, of each map.
        least_areas: Box area, over the last two axes, from which the second, third, ... map is read.
        sampling_ratio: Samples per bin along each axis; 0 is adaptive.
        aligned: Shift by half a cell.
    """
    channels, dims = pooled.shape[1], pooled.ndim - 2
    bins = (1, *pooled.shape[2:])[-3:]
    if pooled.numel() == 0:
        return
    by_channel = _block_channels(channels)
    _forward[(pooled.shape[0], bins[0] * bins[1], triton.cdiv(channels, by_channel))](
        tuple(m.movedim(1, -1).contiguous() for m in maps), _in_3d([m.shape[2:] for m in maps], 1),
        _in_3d(scales, 1.0), tuple(least_areas), boxes.float().contiguous(),
        batch_index.contiguous(), pooled, maps[0].shape[0], channels, sampling_ratio,
        pooled.stride(0), pooled.stride(1), pooled.stride(-1),
        BINS0=bins[0], BINS1=bins[1], BINS2=bins[2], DIMS=dims, ALIGNED=aligned,
        BLOCK_BINS=max(16, triton.next_power_of_2(bins[2])), BLOCK_CELLS=CELLS, BLOCK_CHANNELS=by_channel,
        PRECISION=PRECISION, num_warps=WARPS,
    )  # fmt: skip


def align_backward(
    pulled: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    images: int,
    shapes: Sequence[tuple[int, ...]],
    scales: Sequence[tuple[float, ...]],
    least_areas: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Backward: one gradient ``(B, C, *spatial)`` for each map, channels last in memory, in the dtype of ``pulled``.

    ``pulled`` is ``(N, C, *output_size)``, ``boxes`` ``(N, 2S)`` in voxels of the image.
    """
    channels, dims = pulled.shape[1], pulled.ndim - 2
    found = [pulled.new_empty(images, *s, channels) for s in shapes]
    bins = (1, *pulled.shape[2:])[-3:]
    boxes = boxes.float().contiguous()
    order, offsets = _sort_by_map(boxes, batch_index, least_areas, images)
    programs = [images * prod(s[:-1]) * triton.cdiv(s[-1], CELLS) for s in shapes]
    first_programs = tuple(accumulate(programs))  # of the second map, the third, ..., and the end
    by_channel = _block_channels(channels)
    if sum(programs) and channels:
        _backward[(sum(programs), triton.cdiv(channels, by_channel))](
            tuple(found), _in_3d(shapes, 1), _in_3d(scales, 1.0), first_programs,
            boxes, order, offsets, pulled.movedim(1, -1).contiguous(), images, channels, sampling_ratio,
            BINS0=bins[0], BINS1=bins[1], BINS2=bins[2], DIMS=dims, ALIGNED=aligned,
            BLOCK_BINS=max(16, triton.next_power_of_2(bins[2])), BLOCK_CELLS=CELLS, BLOCK_CHANNELS=by_channel,
            BLOCK_BOXES=BOXES_AT_ONCE, PRECISION=PRECISION, num_warps=WARPS,
        )  # fmt: skip
    return [g.movedim(-1, 1) for g in found]


def _sort_by_map(
    boxes: Tensor, batch_index: Tensor, least_areas: Sequence[float], images: int
) -> tuple[Tensor, Tensor]:
    """Rows of ``boxes`` ordered by level, image and number, and where each level's and image's rows begin.

    Rows that are not boxes, or name no image, come last and belong to none.
    """
    key = batch_index.long() + images * levels_of(boxes, least_areas)
    good = box_rows(boxes) & (batch_index >= 0) & (batch_index < images)
    groups = (len(least_areas) + 1) * images
    sorted_key, order = torch.where(good, key, groups).sort(stable=True)
    return order, torch.searchsorted(sorted_key, torch.arange(groups + 1, device=boxes.device))


def _block_channels(channels: int) -> int:
    return min(CHANNELS, max(16, int(triton.next_power_of_2(channels))))


def _in_3d(values: Sequence[Sequence[Number]], first: Number) -> tuple[Number, ...]:
    """Three numbers for each map, one map after the other; a 2D map gets ``first`` before its own."""
    numbers: list[Number] = []
    for own in values:
        numbers += [first] * (3 - len(own)) + list(own)
    return tuple(numbers)

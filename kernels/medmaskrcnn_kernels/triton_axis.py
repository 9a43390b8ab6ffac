"""RoIAlign's sampling rule on one axis as Triton functions, the counterpart of ``separable.py``.

A box is laid on a feature map axis by axis: ``start`` and ``length`` of a bin in cells, ``samples`` to a bin. Sample
``k`` of bin ``p`` lies at ``start + p * length + (k + 0.5) * length / samples``, is ignored beyond ``[-1, size]``,
and is clamped to the first and last cell. A bin's weight in a cell is the mean over its samples of ``hat(position -
cell)``. Two-dimensional boxes get a first axis of one cell, so one program serves both.
"""

from __future__ import annotations

import triton
import triton.language as tl

MOST_SAMPLES = tl.constexpr(1 << 14)  # of an adaptive grid along one axis, as ``checks.MOST_ADAPTIVE_SAMPLES``


@triton.jit
def pick_map(maps, level):
    """``maps[level]`` of a tuple of pointers, with ``level`` known only at run time."""
    chosen = maps[0]
    for other in tl.static_range(1, len(maps)):
        if level == other:
            chosen = maps[other]
    return chosen


@triton.jit
def pick(values, level, axis: tl.constexpr):
    """``values[level * 3 + axis]`` of a tuple of numbers."""
    chosen = level * 0 + values[axis]
    for other in tl.static_range(1, len(values) // 3):
        chosen = tl.where(level == other, values[other * 3 + axis], chosen)
    return chosen


@triton.jit
def read_corners(boxes, row, dims: tl.constexpr):
    """Minima and maxima of one box, or of many, as float32; the first axis of a 2D box is 0 to 1."""
    at = boxes + row * 2 * dims
    low1, low2 = tl.load(at + dims - 2).to(tl.float32), tl.load(at + dims - 1).to(tl.float32)
    high1, high2 = tl.load(at + 2 * dims - 2).to(tl.float32), tl.load(at + 2 * dims - 1).to(tl.float32)
    if dims == 3:
        low0, high0 = tl.load(at).to(tl.float32), tl.load(at + 3).to(tl.float32)
    else:
        low0, high0 = low1 * 0, low1 * 0 + 1
    return low0, low1, low2, high0, high1, high2


@triton.jit
def usable(low, high):
    """Whether minimum and maximum are finite and in order; false for NaN."""
    return (low <= high) & (low > float("-inf")) & (high < float("inf"))


@triton.jit
def lay_axis(low, high, scale, bins: tl.constexpr, ratio, aligned: tl.constexpr):
    """``start``, ``length`` of a bin and ``samples`` to a bin, in torchvision's order of operations."""
    offset = 0.5 if aligned else 0.0
    start = low * scale - offset
    extent = (high * scale - offset) - start
    if not aligned:
        extent = tl.maximum(extent, 1.0)
    length = tl.div_rn(extent, extent * 0 + bins)
    fitting = tl.ceil(tl.minimum(length, MOST_SAMPLES + 1)).to(tl.int32)
    return start, length, tl.where(ratio > 0, ratio, fitting)


@triton.jit
def sample_at(start, length, samples, bin_number, sample, size):
    """Position of a sample, clamped to the map's cells, and 1.0 if it counts, else 0.0."""
    position = start + bin_number * length + tl.div_rn((sample + 0.5) * length, samples * 1.0 + start * 0)
    seen = ((position >= -1.0) & (position <= size)).to(tl.float32)
    return tl.minimum(tl.maximum(position, 0.0), size - 1.0), seen


@triton.jit
def weight(start, length, samples, bin_number, cell, size):
    """Share of a cell in a bin; ``bin_number`` and ``cell`` broadcast."""
    total = (bin_number + cell) * 0.0
    for sample in range(samples):
        position, seen = sample_at(start, length, samples, bin_number, sample, size)
        total += seen * tl.maximum(1.0 - tl.abs(position - cell), 0.0)
    return total / tl.maximum(samples, 1)


@triton.jit
def column(number, start, length, samples, bin_number, size):
    """Cell and weight of one of the ``2 * samples`` columns that hold all a bin reads.

    Where a bin spans no more cells than that, column ``number`` is its cell of that number; where its samples skip
    cells, it is one of the two cells of one sample. A column that is not needed weighs 0.
    """
    begin, _ = sample_at(start, length, samples, bin_number, 0, size)
    end, _ = sample_at(start, length, samples, bin_number, samples - 1, size)
    first = tl.floor(begin).to(tl.int32)
    span = tl.minimum(tl.floor(end).to(tl.int32) + 1, size - 1) - first + 1
    if span <= 2 * samples:
        cell = first + number
        share = weight(start, length, samples, bin_number, cell, size)
    else:
        position, seen = sample_at(start, length, samples, bin_number, number // 2, size)
        low = tl.floor(position).to(tl.int32)
        part = position - low
        upper = number % 2
        cell = tl.minimum(low + upper, size - 1)
        share = seen * tl.where(upper == 1, part, 1.0 - part) / samples
    return cell, share

"""RoIAlign's sampling rule on one axis, as a small matrix per box.

RoIAlign (Mask R-CNN, section 3) gives each bin the mean of a regular grid of linearly interpolated samples.
Interpolation weights are products over the axes and the grid is a product of one grid per axis, so the mean is

    out[p, q, c] = sum_ij  A0[p, i] * A1[q, j] * feature[i, j, c]

with one matrix ``A`` (bins x cells) for each axis of each box, in 3D with a third one. This file builds them for all
boxes at once, over only those cells that a box reads. On one axis, with ``g`` samples per bin, the sample ``k`` of
bin ``p`` lies at ``start + p * bin + (k + 0.5) * bin / g`` in cell indices; beyond ``[-1, size]`` it counts as 0, and
within it is clamped to the first and last cell. That is torchvision's rule, in torchvision's order of operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medmaskrcnn_kernels.checks import MOST_ADAPTIVE_SAMPLES

SAMPLES_AT_ONCE = 1 << 20
"""Samples along one axis, over all boxes, whose weights are computed together: 4 MB for each temporary."""


@dataclass(frozen=True)
class AxisGrid:
    """Where N boxes are sampled along one axis; coordinates are cell indices of each box's own feature map.

    Attributes:
        start: ``(N,)`` lower edge of each box.
        bin_size: ``(N,)`` length of one bin, in cells.
        samples: ``(N,)`` int64, samples per bin.
        size: ``(N,)`` int64, cells of the feature map along this axis.
        bins: Number of bins.
    """

    start: Tensor
    bin_size: Tensor
    samples: Tensor
    size: Tensor
    bins: int

    def select(self, rows: Tensor) -> AxisGrid:
        """The grids of the boxes at ``rows`` ``(n,)``, indices or a mask."""
        return AxisGrid(self.start[rows], self.bin_size[rows], self.samples[rows], self.size[rows], self.bins)

    def position(self, bin_number: Tensor | int, sample: Tensor | int) -> Tensor:
        """Cell index, continuous, of a sample; arguments broadcast against ``(N, 1, 1)``. Shape ``(N, P, G)``."""
        start, length, count = (t[:, None, None] for t in (self.start, self.bin_size, self.samples))
        position = start + bin_number * length + (sample + 0.5) * length / count.clamp(min=1)
        return position.nan_to_num(nan=-2.0)  # a box near the end of the float range: not sampled

    def first_cell(self) -> Tensor:
        """``(N,)`` int64: lowest cell that a sample reads."""
        low, _, _ = taps(self.position(0, 0), self.size[:, None, None])
        return low[:, 0, 0]

    def last_cell(self) -> Tensor:
        """``(N,)`` int64: highest cell that a sample reads."""
        _, high, _ = taps(self.position(self.bins - 1, self.samples[:, None, None] - 1), self.size[:, None, None])
        return high[:, 0, 0]

    def cell_counts(self) -> Tensor:
        """``(N,)`` int64: how many columns each box's matrix needs.

        All cells from the first to the last, or, where a box is so large that its samples skip cells, two for
        each sample; so a window never grows with the box beyond what is read.
        """
        extent = self.last_cell() - self.first_cell() + 1
        return torch.minimum(extent, 2 * self.bins * self.samples).clamp(min=1)

    def bin_columns_at_most(self) -> Tensor:
        """``(N,)`` int64: upper bound of the columns :func:`bin_columns` needs for one bin of each box."""
        within = torch.minimum(self.bin_size.clamp(max=2.0**30).ceil().long() + 2, self.size)
        return torch.minimum(within, 2 * self.samples).clamp(min=1)


def axis_grid(
    minimum: Tensor, maximum: Tensor, scale: Tensor, size: Tensor, *, bins: int, sampling_ratio: int, aligned: bool
) -> AxisGrid:
    """Lay the sampling grid of one axis over the boxes.

    Args:
        minimum: ``(N,)`` lower edges in voxels of the image.
        maximum: ``(N,)`` upper edges.
        scale: ``(N,)`` cells of the feature map per voxel.
        size: ``(N,)`` int64, cells of each box's feature map.
        bins: Number of bins.
        sampling_ratio: Samples per bin; 0 takes ``ceil(bin size)``, and none where that is over
            ``MOST_ADAPTIVE_SAMPLES``.
        aligned: Subtract half a cell, so that cell ``i``'s value belongs to its centre ``i + 0.5``. Without it a
            box is at least one cell long.
    """
    offset = 0.5 if aligned else 0.0
    start = minimum * scale - offset
    length = (maximum * scale - offset) - start
    if not aligned:
        length = length.clamp(min=1.0)
    bin_size = length / bins
    fitting = torch.where(bin_size <= MOST_ADAPTIVE_SAMPLES, bin_size, 0).ceil().long()
    samples = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else fitting
    return AxisGrid(start, bin_size, samples, size, bins)


def onto_map(position: Tensor, size: Tensor) -> Tensor:
    """Cell indices ``position``, of any shape, clamped to the first and last of ``size`` cells."""
    return torch.minimum(position.clamp(min=0), (size - 1).to(position.dtype))


def taps(position: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells a sample reads, and the second one's weight: ``low``, ``high`` (int64), ``fraction``.

    Positions outside ``[0, size - 1]`` are clamped to the border cells.
    """
    clamped = onto_map(position, size)
    low = clamped.long()
    high = torch.minimum(low + 1, size - 1)
    return low, high, clamped - low


def bin_columns(grid: AxisGrid) -> tuple[Tensor, Tensor]:
    """The cells that each bin reads, one after the other, and their weights.

    Args:
        grid: Sampling grid of N boxes.

    Returns:
        ``(N, P, K)`` int64 cells and their weights, where K is what the most demanding bin of these boxes needs: all
        cells from its first to its last or, where its samples skip cells, two for each sample. A bin that needs fewer
        repeats its last cell with weight 0; a box needs no more than ``bin_columns_at_most`` for any of its bins.
    """
    count, size = grid.samples[:, None, None], grid.size[:, None, None]
    bin_number = torch.arange(grid.bins, device=grid.start.device)[:, None]
    first, _, _ = taps(grid.position(bin_number, 0), size)  # (N, P, 1)
    _, last, _ = taps(grid.position(bin_number, count - 1), size)
    span = last - first + 1
    columns = int(grid.bin_columns_at_most().max()) if len(first) else 1
    column = torch.arange(columns, device=first.device)
    skips = (span > 2 * count) & (count > 0)
    # Where samples skip cells, columns 2 t and 2 t + 1 are the two cells of sample t.
    upper = column % 2 == 1
    low, high, fraction = taps(grid.position(bin_number, column // 2), size)
    cells = torch.where(skips, torch.where(upper, high, low), torch.minimum(first + column, last))
    weights = torch.zeros_like(fraction)
    for sample in range(int(grid.samples.max()) if len(first) else 0):
        position = grid.position(bin_number, sample)
        low, high, fraction = taps(position, size)
        seen = ((position >= -1.0) & (position <= size) & (sample < count)) / count.clamp(min=1)
        hat = (1 - (onto_map(position, size) - cells).abs()).clamp(min=0)
        own = torch.where(upper, fraction, 1 - fraction) * (column // 2 == sample)
        weights += torch.where(skips, own, hat * (column < span)) * seen
    return cells, weights


def axis_matrices(grid: AxisGrid, columns: int) -> tuple[Tensor, Tensor]:
    """One interpolation matrix for each box.

    Args:
        grid: Sampling grid of N boxes.
        columns: Columns of the matrices; at least ``grid.cell_counts().max()``.

    Returns:
        ``(N, P, columns)`` weights, each row the mean over a bin's samples, and ``(N, columns)`` int64, the cell of
        each column. Columns beyond those a box needs weigh 0 and repeat its last cell.
    """
    boxes = grid.start.shape[0]
    most = int(grid.samples.max()) if boxes else 0
    first, last = grid.first_cell(), grid.last_cell()
    # Adaptive grids have a sample in every cell, so boxes that skip all have the same, fixed number of samples.
    skips = ((last - first + 1) > 2 * grid.bins * grid.samples) & (grid.samples > 0)
    column = torch.arange(columns, device=first.device)
    cells = torch.minimum(first[:, None] + column, last[:, None])
    weights = grid.start.new_zeros(boxes, grid.bins, columns)
    step = max(1, SAMPLES_AT_ONCE // max(1, boxes * grid.bins))
    bin_number = torch.arange(grid.bins, device=first.device)[:, None]
    for begin in range(0, most, step):
        sample = torch.arange(begin, min(begin + step, most), device=first.device)
        position = grid.position(bin_number, sample)  # (N, P, G)
        size, count = grid.size[:, None, None], grid.samples[:, None, None]
        low, high, fraction = taps(position, size)
        seen = (position >= -1.0) & (position <= size) & (sample < count)
        share = seen / count.clamp(min=1).to(position.dtype)
        # A skipping box lists its samples' cells one after the other: columns 2 t and 2 t + 1 are sample t's.
        order = 2 * (bin_number * count + sample)
        skip = skips[:, None, None]
        for which, (cell, part) in enumerate(((low, 1.0 - fraction), (high, fraction))):
            target = torch.where(skip, order + which, cell - first[:, None, None])
            target = torch.where(sample < count, target, 0)
            weights.scatter_add_(2, target, part * share)
            if bool(skips.any()):
                rows = skips.nonzero()[:, 0]
                cells[rows[:, None], target[rows].flatten(1)] = cell[rows].flatten(1)
    return weights, cells

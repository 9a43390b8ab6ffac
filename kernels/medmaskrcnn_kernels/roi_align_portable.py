"""RoIAlign over a feature pyramid in plain PyTorch. Boxes are sorted by map and size and run in chunks for the cache.

Forward, each bin is one weighted sum of the cells it reads, whose weights are products over the axes: on the CPU one
call of ``embedding_bag``, without intermediate tensors. Backward, the matrices of ``separable.py`` transposed take
each box's gradient axis by axis to the window of cells that the box reads,

    (P0, P1, P2, C) -> (K0, P1, P2, C) -> (K0, K1, P2, C) -> (K0, K1, K2, C)

and the window is added to the map's gradient: once for each cell and box, where bins that share a cell would add to it
many times. On the CPU these sums run in one fixed order. On a GPU ``index_add_`` uses atomics unless
``torch.use_deterministic_algorithms(True)`` is set. Coordinates, weights and sums are float32 (float64 for float64
features) whatever the features are. A bin may multiply a cell that it does not read by 0, so an infinity in a map can
make bins near it NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from medmaskrcnn_kernels.checks import check_adaptive_samples
from medmaskrcnn_kernels.separable import AxisGrid, axis_grid, axis_matrices, bin_columns

CHUNK_ELEMENTS = 1 << 19
"""Numbers of the bins, or windows, that run together: 2 MB in float32, which stays in a CPU's cache."""
PLAN_BOXES = 1024
"""Boxes whose matrices are built together."""
MOST_PADDING = 1.5
"""A chunk may gather this much more than its boxes read, since its windows share one shape."""
FEWEST_CHANNELS = 16
"""A single window over ``CHUNK_ELEMENTS`` is gathered some channels at a time, but no fewer than these."""


@dataclass(frozen=True)
class SamplingPlan:
    """All that RoIAlign needs of the boxes, sorted so that neighbours have windows of similar size.

    Attributes:
        order: ``(N,)`` int64, index of each sorted box in the caller's list.
        level: Feature map of each box.
        image: ``(N,)`` int64, image of each box.
        shapes: Spatial shape of each feature map.
        grids: One sampling grid per axis.
        counts: Cells that each box reads along each axis.
        columns: Upper bound of the cells that one bin of each box reads along each axis.
        output_size: Bins along each axis.
    """

    order: Tensor
    level: list[int]
    image: Tensor
    shapes: tuple[tuple[int, ...], ...]
    grids: tuple[AxisGrid, ...]
    counts: list[list[int]]
    columns: list[list[int]]
    output_size: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """Boxes that are sampled together: their matrices per axis and the map rows of their windows.

    Attributes:
        level: The map that they read.
        where: ``(n,)`` int64, which boxes of the call these are.
        rows: ``(n, *columns)`` int64, rows of the flattened map ``(B * cells, C)`` that their windows cover.
        weights: For each axis ``(n, P, columns)``, the share of each cell in each bin.
    """

    level: int
    where: Tensor
    rows: Tensor
    weights: tuple[Tensor, ...]


def make_plan(
    boxes: Tensor,
    batch_index: Tensor,
    *,
    shapes: Sequence[tuple[int, ...]],
    scales: Sequence[tuple[float, ...]],
    least_areas: Sequence[float],
    output_size: tuple[int, ...],
    sampling_ratio: int,
    aligned: bool,
    checked: bool,
) -> SamplingPlan:
    """Lay the sampling grids over the boxes and sort the boxes by map and window size.

    Args:
        boxes: ``(N, 2S)`` in voxels of the image, float32 or float64.
        batch_index: ``(N,)`` int64.
        shapes: Spatial shape of each map.
        scales: Cells per voxel along each axis, of each map.
        least_areas: Box area from which the second, third, ... map is read.
        output_size: Bins along each axis.
        sampling_ratio: Samples per bin along each axis; 0 is adaptive.
        aligned: Shift by half a cell.
        checked: Raise for a box with too many adaptive samples; otherwise it gets no samples.
    """
    dims = boxes.shape[1] // 2
    level = levels_of(boxes, least_areas)
    size_of_level = torch.tensor([list(s) for s in shapes], device=boxes.device)
    scale_of_level = torch.tensor([list(s) for s in scales], device=boxes.device, dtype=boxes.dtype)
    size, scale = size_of_level[level], scale_of_level[level]
    grids = tuple(
        axis_grid(
            boxes[:, axis], boxes[:, dims + axis], scale[:, axis], size[:, axis],
            bins=output_size[axis], sampling_ratio=sampling_ratio, aligned=aligned,
        )
        for axis in range(dims)
    )  # fmt: skip
    if checked and sampling_ratio == 0:
        check_adaptive_samples(torch.stack([g.bin_size for g in grids]).amax(0))
    counts = torch.stack([g.cell_counts() for g in grids], 1)
    key = level
    for axis in range(dims):
        step = 1 if axis == dims - 1 else 4
        key = key * (1 << 16) + counts[:, axis].clamp(max=(1 << 16) - 1) // step
    order = key.argsort(stable=True)
    return SamplingPlan(
        order=order,
        level=level[order].tolist(),
        image=batch_index[order],
        shapes=tuple(shapes),
        grids=tuple(g.select(order) for g in grids),
        counts=counts[order].tolist(),
        columns=torch.stack([g.bin_columns_at_most() for g in grids], 1)[order].tolist(),
        output_size=output_size,
    )


def levels_of(boxes: Tensor, least_areas: Sequence[float]) -> Tensor:
    """Which map each box ``(N, 2S)`` (voxels) reads, ``(N,)``: the number of areas that it reaches."""
    dims = boxes.shape[1] // 2
    extent = boxes[:, dims:].float() - boxes[:, :dims].float()
    area = extent[:, -2] * extent[:, -1]
    level = torch.zeros_like(area, dtype=torch.int64)
    for least in least_areas:
        level += area >= least
    return level


def cut(
    plan: SamplingPlan, extents: list[list[int]], first: int, stop: int, fits: Callable[[list[int], int, int], bool]
) -> Iterator[tuple[int, int, list[int]]]:
    """Cut sorted boxes ``first..stop`` into chunks of one map: begin, end, and the extents that its boxes share.

    Args:
        plan: The boxes.
        extents: What each box takes along each axis.
        first: First box.
        stop: One past the last.
        fits: Whether a chunk may run together, given its shared extents, number of boxes and total size.
    """
    begin = first
    while begin < stop:
        shared, own, end = extents[begin], 0, begin
        while end < stop and plan.level[end] == plan.level[begin]:
            grown = [max(a, b) for a, b in zip(shared, extents[end], strict=True)]
            taken = own + prod(extents[end])
            if end > begin and not fits(grown, end + 1 - begin, taken):
                break
            shared, own, end = grown, taken, end + 1
        yield begin, end, shared
        begin = end


def chunks(plan: SamplingPlan, channels: int) -> Iterator[Chunk]:
    """The plan's boxes, some at a time, with their matrices and the rows of their windows in the flattened map."""
    total = len(plan.level)

    def fits(window: list[int], count: int, read: int) -> bool:
        gathered = prod(window) * count
        return gathered * channels <= CHUNK_ELEMENTS and gathered <= MOST_PADDING * read

    for first in range(0, total, PLAN_BOXES):
        stop = min(first + PLAN_BOXES, total)
        part = torch.arange(first, stop, device=plan.order.device)
        widest = [max(c[axis] for c in plan.counts[first:stop]) for axis in range(len(plan.grids))]
        built = [axis_matrices(g.select(part), columns) for g, columns in zip(plan.grids, widest, strict=True)]
        for begin, end, window in cut(plan, plan.counts, first, stop, fits):
            own = slice(begin - first, end - first)
            rows = plan.image[begin:end]
            for axis, columns in enumerate(window):
                cells = built[axis][1][own, :columns]
                cells = cells.view(cells.shape[:1] + (1,) * axis + cells.shape[1:])
                rows = rows[..., None] * plan.shapes[plan.level[begin]][axis] + cells
            weights = tuple(w[own, :, :columns] for (w, _), columns in zip(built, window, strict=True))
            yield Chunk(plan.level[begin], plan.order[begin:end], rows, weights)


def contract(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Apply one matrix per axis: ``(n, K0, ..., C)`` and matrices ``(n, P_a, K_a)`` give ``(n, P0, ..., C)``."""
    boxes, channels = values.shape[0], values.shape[-1]
    done: tuple[int, ...] = ()
    for weight in weights:
        left = values.shape[len(done) + 1]
        stacked = weight[(slice(None),) + (None,) * len(done)].expand(boxes, *done, *weight.shape[1:])
        values = torch.bmm(stacked.reshape(-1, *weight.shape[1:]), values.reshape(boxes * prod(done), left, -1))
        done = (*done, weight.shape[1])
        rest = [w.shape[2] for w in weights[len(done) :]]
        values = values.view(boxes, *done, *rest, channels)
    return values


def channel_slices(chunk: Chunk, channels: int) -> Iterator[slice]:
    """All channels at once, or some at a time for a window that is too large."""
    step = max(FEWEST_CHANNELS, CHUNK_ELEMENTS // max(1, chunk.rows.numel()))
    step = channels if chunk.where.shape[0] > 1 else step
    for begin in range(0, channels, step):
        yield slice(begin, min(begin + step, channels))


def bags(plan: SamplingPlan, channels: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """The boxes, some at a time: map, place of each box, and rows ``(n * bins, K)`` and weights of what bins read."""
    total, bins = len(plan.level), prod(plan.output_size)

    def fits(columns: list[int], count: int, _: int) -> bool:
        return count * bins * max(channels, prod(columns)) <= CHUNK_ELEMENTS

    for first in range(0, total, PLAN_BOXES):
        stop = min(first + PLAN_BOXES, total)
        part = torch.arange(first, stop, device=plan.order.device)
        built = [bin_columns(g.select(part)) for g in plan.grids]
        for begin, end, columns in cut(plan, plan.columns, first, stop, fits):
            rows, weights = plan.image[begin:end], built[0][1].new_ones(end - begin)
            for axis, (cells, shares) in enumerate(built):
                # (n, P0, ..., K0, ...): this axis' bins go behind the bins, its columns behind the columns.
                own, axes = (slice(begin - first, end - first), slice(None), slice(columns[axis])), (1,) * axis
                shape = (end - begin, *axes, cells.shape[1], *axes, columns[axis])
                rows = rows.unsqueeze(1 + axis).unsqueeze(-1) * plan.shapes[plan.level[begin]][axis]
                rows = rows + cells[own].reshape(shape)
                weights = weights.unsqueeze(1 + axis).unsqueeze(-1) * shares[own].reshape(shape)
            count = (end - begin) * bins
            yield plan.level[begin], plan.order[begin:end], rows.reshape(count, -1), weights.reshape(count, -1)


def sample_maps(plan: SamplingPlan, maps: Sequence[Tensor], pooled: Tensor) -> None:
    """Forward: fill ``pooled`` ``(N, C, *output_size)``, of the maps' dtype and any layout."""
    channels, last = pooled.shape[1], pooled.movedim(1, -1).is_contiguous()
    tables = [rows_of_channels(m).to(plan.grids[0].start.dtype) for m in maps]
    for level, where, rows, weights in bags(plan, channels):
        found = weighted_rows(tables[level], rows, weights)
        found = found.view(-1, *plan.output_size, channels).to(pooled.dtype).movedim(-1, 1)
        # Channels change places here, while the chunk is in the cache, and not in the whole result.
        pooled.index_copy_(0, where, found if last else found.contiguous())


def rows_of_channels(feature: Tensor) -> Tensor:
    """A map ``(B, C, *spatial)`` as ``(B * cells, C)``, without a copy if its channels come last in memory."""
    if feature.movedim(1, -1).is_contiguous():
        return feature.movedim(1, -1).reshape(-1, feature.shape[1])
    rows = feature.new_empty(feature.shape[0], prod(feature.shape[2:]), feature.shape[1])
    for image, own in zip(feature, rows, strict=True):
        own.copy_(image.reshape(feature.shape[1], -1).T)  # a plain transpose, which PyTorch does in blocks
    return rows.view(-1, feature.shape[1])


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum of rows of ``table`` ``(R, C)``: rows and weights ``(bags, K)`` give ``(bags, C)``."""
    if table.device.type == "cpu":  # one pass, without an intermediate gather
        return functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
    return torch.bmm(weights[:, None], table[rows])[:, 0]


def spread_gradient(plan: SamplingPlan, gradient: Tensor, images: int) -> list[Tensor]:
    """Backward: one gradient ``(B, C, *spatial)`` for each map, channels last in memory, in the plan's dtype."""
    channels, dtype = gradient.shape[1], plan.grids[0].start.dtype
    rows_of_gradient = gradient.movedim(1, -1)
    tables = [torch.zeros(images * prod(s), channels, dtype=dtype, device=gradient.device) for s in plan.shapes]
    for chunk in chunks(plan, channels):
        transposed = [w.transpose(1, 2) for w in chunk.weights]
        for part in channel_slices(chunk, channels):
            pooled = rows_of_gradient[..., part].index_select(0, chunk.where).to(dtype)
            window = contract(pooled, transposed).reshape(-1, part.stop - part.start)
            tables[chunk.level][:, part].index_add_(0, chunk.rows.reshape(-1), window)
    return [t.view(images, *s, channels).movedim(-1, 1) for t, s in zip(tables, plan.shapes, strict=True)]

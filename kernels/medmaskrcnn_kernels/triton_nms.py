"""Greedy non-maximum suppression on the GPU: two launches, one host synchronisation for the number of kept boxes.

The first kernel compares all pairs, best boxes first, and packs "suppresses" into bits, 32 boxes per word. The second,
one program, goes through the boxes 32 at a time: the greedy rule within the 32 is iterated to its fixed point, as in
``nms_portable.py``, and the rows of those kept are OR-ed with what is already suppressed. IoU is float32 in
torchvision's order of operations, without fused multiply-add, so that ties at the threshold fall the same way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from medmaskrcnn_kernels.checks import box_rows
from medmaskrcnn_kernels.nms_portable import largest_float32

WORD = 32
"""Boxes per word of bits."""
ROWS = 64
"""Boxes compared with a word's boxes by one program."""
MOST_BOXES = 1 << 15
"""More are left to the portable form: bits of all pairs would take over 128 MB."""


@triton.jit
def _extent(boxes, row, column, axis: tl.constexpr, dims: tl.constexpr, rows, columns):
    """Overlap along one axis ``(rows, columns)``, and both boxes' own extents."""
    low_row = tl.load(boxes + row * 2 * dims + axis, mask=rows, other=0.0)
    high_row = tl.load(boxes + row * 2 * dims + dims + axis, mask=rows, other=0.0)
    low_column = tl.load(boxes + column * 2 * dims + axis, mask=columns, other=0.0)
    high_column = tl.load(boxes + column * 2 * dims + dims + axis, mask=columns, other=0.0)
    low = tl.maximum(low_row[:, None], low_column[None, :])
    high = tl.minimum(high_row[:, None], high_column[None, :])
    return tl.maximum(high - low, 0.0), high_row - low_row, high_column - low_column


@triton.jit
def _compare(
    boxes, labels, strikes, count, words, threshold,
    DIMS: tl.constexpr, ROWS: tl.constexpr, WORD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * WORD + tl.arange(0, WORD)
    rows, columns = row < count, column < count
    if (tl.program_id(1) + 1) * WORD > tl.program_id(0) * ROWS:
        overlap, size_row, size_column = _extent(boxes, row, column, 0, DIMS, rows, columns)
        for axis in tl.static_range(1, DIMS):
            shared, own_row, own_column = _extent(boxes, row, column, axis, DIMS, rows, columns)
            overlap, size_row, size_column = overlap * shared, size_row * own_row, size_column * own_column
        union = size_row[:, None] + size_column[None, :] - overlap
        # Two boxes without extent: 0 / 1 in place of 0 / 0. The portable form divides by the smallest float32 instead,
        # but a number that small is float64 to Triton's interpreter when it comes from Python, and div_rn refuses it.
        union = tl.where(union > 0, union, 1.0)
        same = tl.load(labels + row, mask=rows, other=-1)[:, None] == tl.load(labels + column, mask=columns, other=-2)
        struck = (tl.div_rn(overlap, union) > threshold) & same & (column[None, :] > row[:, None])
        bits = struck.to(tl.int32) << tl.arange(0, WORD)[None, :]
        tl.store(strikes + row.to(tl.int64) * words + tl.program_id(1), tl.sum(bits, 1), mask=rows)


@triton.jit
def _either(one, other):
    return one | other


@triton.jit
def _scan(strikes, kept, count, words, WORD: tl.constexpr, BLOCK_WORDS: tl.constexpr):
    word = tl.arange(0, BLOCK_WORDS)
    bit = tl.arange(0, WORD)
    struck = tl.zeros((BLOCK_WORDS,), tl.int32)
    for now in range(words):
        row = now * WORD + bit
        rows = row.to(tl.int64) * words
        out = tl.sum(tl.where(word == now, struck, 0), 0)
        alive = ((((out >> bit) & 1) == 0) & (row < count)).to(tl.int32)
        within = tl.load(strikes + rows + now, mask=row < count, other=0)
        pairs = (within[:, None] >> bit[None, :]) & 1  # row suppresses column
        keep, changed = alive, 1
        while changed > 0:
            # The same decisions once along the columns, once along the rows: a sum over bits changes the layout.
            packed = tl.sum(keep << bit, 0)
            striking = (packed >> bit) & 1
            following = alive * (1 - tl.max(pairs * striking[:, None], 0))
            changed = tl.max(tl.abs(following - keep), 0)
            keep = following
        tl.store(kept + row, keep.to(tl.int8), mask=row < count)
        chosen = (tl.sum(keep << bit, 0) >> bit) & 1
        later = (chosen[:, None] > 0) & (word > now)[None, :] & (word < words)[None, :]
        bits = tl.load(strikes + rows[:, None] + word[None, :], mask=later, other=0)
        struck |= tl.reduce(bits, 0, _either)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor | None, iou_threshold: float) -> Tensor:
    """Indices ``(K,)`` int64 of the boxes that are kept, by descending score, ties by ascending index.

    Args:
        boxes: ``(N, 2S)``; a row that is not a box, or whose score is NaN, is not kept and suppresses nothing.
        scores: ``(N,)``.
        labels: ``(N,)`` integers; boxes of different labels never suppress one another. ``None``: all the same.
        iou_threshold: A box is dropped if it overlaps a better, kept one by more than this.
    """
    dims = boxes.shape[1] // 2
    good = box_rows(boxes) & ~torch.isnan(scores)
    order = torch.where(good, scores, float("-inf")).argsort(descending=True, stable=True)
    count, words = boxes.shape[0], triton.cdiv(boxes.shape[0], WORD)
    kept = torch.zeros(count, dtype=torch.int8, device=boxes.device)
    strikes = torch.empty(count * words, dtype=torch.int32, device=boxes.device)
    own = torch.zeros_like(order) if labels is None else labels[order].long()
    if count:
        sorted_boxes = torch.where(good[:, None], boxes.float(), 0)[order].contiguous()
        _compare[(triton.cdiv(count, ROWS), words)](
            sorted_boxes, own, strikes, count, words, largest_float32(iou_threshold),
            DIMS=dims, ROWS=ROWS, WORD=WORD, enable_fp_fusion=False,
        )  # fmt: skip
        _scan[(1,)](strikes, kept, count, words, WORD=WORD, BLOCK_WORDS=triton.next_power_of_2(words), num_warps=8)
    return order[(kept > 0) & good[order]]

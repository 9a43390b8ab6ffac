"""The operators as registered with PyTorch, and the one place where an implementation is chosen.

Registration with ``torch.library``, with a fake kernel and a derivative, lets ``torch.compile`` and ``torch.export``
take a model that calls the operators as one graph. Values are checked here, where they are known; shapes are checked by
``operators.py``. Autocast is switched off inside: coordinates, weights and sums are float32 whatever the features are.
Triton kernels, where ``choice.py`` chooses them, give zeros for a row that is not a box; the portable form,
where values are not checked, gets such rows as empty boxes and sets their output to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from medmaskrcnn_kernels.checks import box_rows, check_batch_values, check_box_values, check_score_values
from medmaskrcnn_kernels.choice import use_triton, values_are_checked
from medmaskrcnn_kernels.nms_portable import batched_nms_portable, nms_portable
from medmaskrcnn_kernels.paste import paste_all
from medmaskrcnn_kernels.plain import plain
from medmaskrcnn_kernels.roi_align_portable import SamplingPlan, make_plan, sample_maps, spread_gradient

Number = TypeVar("Number", int, float)


def _operator(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function under its name, with the schema of its annotations.

    ``torch.library.custom_op`` would do the same, but imports ``torch._dynamo`` when it is first called: 2.5 s.
    """
    name = f"medmaskrcnn::{kernel.__name__}"
    torch.library.define(name, torch.library.infer_schema(kernel, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "default", kernel)
    registered: Callable[..., Any] = getattr(torch.ops.medmaskrcnn, kernel.__name__).default
    return registered


@_operator
def roi_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    scales: Sequence[float],
    least_areas: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of each box on the map that suits its area: ``(N, C, *output_size)``.

    Args:
        maps: ``(B, C, *spatial)`` each, the finest first.
        boxes: ``(N, 2S)`` in voxels of the image.
        batch_index: ``(N,)``, the image of each box.
        scales: Cells of a map per voxel of the image, S numbers for each map, in turn.
        least_areas: Smallest area or volume (voxels) from which a box reads the second map, the third, ...
        output_size: Bins along each axis.
        sampling_ratio: Samples per bin along each axis; 0 takes one per cell.
        aligned: Whether cell centres are at half-integers.
    """
    pooled = empty_like_map(maps[0], boxes.shape[0], output_size)
    images = maps[0].shape[0]
    _check_rows(boxes, batch_index, images)
    with torch.autocast(boxes.device.type, enabled=False):
        if _triton_serves(maps[0]):
            from medmaskrcnn_kernels.triton_roi_align import align  # here: triton may not be installed

            align(
                maps, boxes, batch_index, pooled,
                scales=split(scales, pooled.ndim - 2), least_areas=least_areas,
                sampling_ratio=sampling_ratio, aligned=aligned,
            )  # fmt: skip
        else:
            shapes = [n for m in maps for n in m.shape[2:]]
            good = _good_rows(boxes, batch_index, images)
            boxes, batch_index = _blanked(boxes, good), _blanked(batch_index, good)
            plan = _plan(
                pooled.dtype, boxes, batch_index, shapes, scales, least_areas, output_size, sampling_ratio, aligned
            )
            sample_maps(plan, maps, pooled)
            pooled = _blanked(pooled, good)
    return pooled


@torch.library.register_fake("medmaskrcnn::roi_align")  # type: ignore[untyped-decorator]
def _(
    maps: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    scales: Sequence[float],
    least_areas: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return empty_like_map(maps[0], boxes.shape[0], output_size)


@_operator
def roi_align_backward(
    gradient: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    images: int,
    shapes: Sequence[int],
    scales: Sequence[float],
    least_areas: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: Sequence[bool],
) -> list[Tensor]:
    """Gradients of the maps, ``(B, C, *spatial)`` each, in the dtype of ``gradient``.

    Arguments as :func:`roi_align`, whose result has the ``gradient`` ``(N, C, *output_size)``; the maps' spatial
    ``shapes`` are concatenated.
    """
    dims, output_size = gradient.ndim - 2, gradient.shape[2:]
    with torch.autocast(boxes.device.type, enabled=False):
        if _triton_serves(gradient):
            from medmaskrcnn_kernels.triton_roi_align import align_backward  # here: triton may not be installed

            found = align_backward(
                gradient, boxes, batch_index,
                images=images, shapes=split(shapes, dims), scales=split(scales, dims), least_areas=least_areas,
                sampling_ratio=sampling_ratio, aligned=aligned,
            )  # fmt: skip
        else:
            good = _good_rows(boxes, batch_index, images)
            boxes, batch_index, gradient = (_blanked(t, good) for t in (boxes, batch_index, gradient))
            plan = _plan(
                gradient.dtype, boxes, batch_index, shapes, scales, least_areas, output_size, sampling_ratio, aligned
            )
            found = [g.to(gradient.dtype) for g in spread_gradient(plan, gradient, images)]
    return [g if last else g.contiguous() for g, last in zip(found, channels_last, strict=True)]


@torch.library.register_fake("medmaskrcnn::roi_align_backward")  # type: ignore[untyped-decorator]
def _(
    gradient: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    images: int,
    shapes: Sequence[int],
    scales: Sequence[float],
    least_areas: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: Sequence[bool],
) -> list[Tensor]:
    channels, dims = gradient.shape[1], gradient.ndim - 2
    found = [gradient.new_empty(images, *s, channels).movedim(-1, 1) for s in split(shapes, dims)]
    return [g if last else g.contiguous() for g, last in zip(found, channels_last, strict=True)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, boxes, batch_index, scales, least_areas, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(boxes, batch_index)
    shapes = [n for m in maps for n in m.shape[2:]]
    last = [is_channels_last(m) for m in maps]
    ctx.before = (maps[0].shape[0], shapes, scales, least_areas, sampling_ratio, aligned, last)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return (roi_align_backward(plain(gradient), *ctx.saved_tensors, *ctx.before), *[None] * 7)


torch.library.register_autograd("medmaskrcnn::roi_align", _differentiate, setup_context=_remember)


@_operator
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices ``(K,)`` int64 of the boxes ``(N, 2S)`` that are kept."""
    return _suppress(boxes, scores, None, iou_threshold)


@torch.library.register_fake("medmaskrcnn::nms")  # type: ignore[untyped-decorator]
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@_operator
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices ``(K,)`` int64 of the boxes ``(N, 2S)`` that are kept, class by class."""
    return _suppress(boxes, scores, idxs, iou_threshold)


@torch.library.register_fake("medmaskrcnn::batched_nms")  # type: ignore[untyped-decorator]
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _suppress(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    checked = values_are_checked(boxes.device)
    if checked:
        check_box_values(boxes)
        check_score_values(scores)
    with torch.autocast(boxes.device.type, enabled=False):
        if use_triton(boxes.device):
            from medmaskrcnn_kernels import triton_nms  # here: triton may not be installed

            if boxes.shape[0] <= triton_nms.MOST_BOXES:
                return triton_nms.nms(boxes, scores, idxs, iou_threshold)
        rows = None if checked else (box_rows(boxes) & ~torch.isnan(scores)).nonzero()[:, 0]
        if rows is not None:
            boxes, scores, idxs = boxes[rows], scores[rows], None if idxs is None else idxs[rows]
        if idxs is None:
            kept = nms_portable(boxes, scores, iou_threshold)
        else:
            kept = batched_nms_portable(boxes, scores, idxs, iou_threshold)
        return kept if rows is None else rows[kept]


def paste_masks(probabilities: Tensor, boxes: Tensor, windows: Tensor, threshold: float | None) -> list[Tensor]:
    """Crops of all windows; not a graph node, since their number and sizes are known from values alone.

    Args:
        probabilities: ``(N, M, ..., M)``.
        boxes: ``(N, 2S)`` in voxels.
        windows: ``(N, 2S)`` int64, half-open voxel indices.
        threshold: ``None`` for the probabilities themselves.
    """
    check_box_values(windows, name="windows")
    if values_are_checked(boxes.device):
        check_box_values(boxes)
    precision = torch.float64 if probabilities.dtype == torch.float64 else torch.float32
    probabilities, boxes = probabilities.to(precision), boxes.to(precision)
    with torch.autocast(boxes.device.type, enabled=False):
        if _triton_serves(probabilities):
            from medmaskrcnn_kernels.triton_paste import paste  # here: triton may not be installed

            crops = paste(probabilities, boxes, windows)
            return crops if threshold is None else [crop >= threshold for crop in crops]
        return paste_all(probabilities, boxes, windows, threshold)


def _triton_serves(values: Tensor) -> bool:
    return values.dtype != torch.float64 and use_triton(values.device)


def _check_rows(boxes: Tensor, batch_index: Tensor, images: int) -> None:
    if values_are_checked(boxes.device):
        check_box_values(boxes)
        check_batch_values(batch_index, images)


def _good_rows(boxes: Tensor, batch_index: Tensor, images: int) -> Tensor | None:
    """Rows that are boxes of an image, or ``None`` for all, when they have been checked."""
    if values_are_checked(boxes.device):
        return None
    return box_rows(boxes) & (batch_index >= 0) & (batch_index < images)


def _blanked(values: Tensor, good: Tensor | None) -> Tensor:
    """``values`` with zeros in the rows that are not ``good``."""
    if good is None:
        return values
    return values.masked_fill(~good.view(-1, *[1] * (values.ndim - 1)), 0)


def is_channels_last(features: Tensor) -> bool:
    """True if a map's channels lie next to each other in memory: ``(B, C, *spatial)``, and not also contiguous."""
    layout = torch.channels_last if features.ndim == 4 else torch.channels_last_3d
    return features.is_contiguous(memory_format=layout) and not features.is_contiguous()


def empty_like_map(feature: Tensor, count: int, spatial: Sequence[int]) -> Tensor:
    """``(count, C, *spatial)`` in the dtype and layout of a map ``(B, C, ...)``, uninitialised."""
    channels = feature.shape[1]
    if is_channels_last(feature):
        return feature.new_empty(count, *spatial, channels).movedim(-1, 1)
    return feature.new_empty(count, channels, *spatial)


def split(numbers: Sequence[Number], count: int) -> list[tuple[Number, ...]]:
    """``numbers`` in groups of ``count``."""
    return [tuple(numbers[i : i + count]) for i in range(0, len(numbers), count)]


def _plan(
    dtype: torch.dtype,
    boxes: Tensor,
    batch_index: Tensor,
    shapes: Sequence[int],
    scales: Sequence[float],
    least_areas: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> SamplingPlan:
    dims = boxes.shape[1] // 2
    return make_plan(
        boxes.to(torch.float64 if dtype == torch.float64 else torch.float32),
        batch_index.long(),
        shapes=split(shapes, dims),
        scales=split(scales, dims),
        least_areas=least_areas,
        output_size=tuple(output_size),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        checked=values_are_checked(boxes.device),
    )

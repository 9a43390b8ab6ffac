"""The operators as PyTorch knows them, and the one place where an implementation is chosen.

Registration with ``torch.library``, with a fake kernel and a derivative, lets ``torch.compile`` and ``torch.export``
take a model that calls the operators as one graph. The bodies below serve every device with the portable
implementation; one for particular hardware is to be chosen here, before the portable call. Values are checked here,
where they are known; shapes are checked by ``operators.py``. Autocast is switched off inside: coordinates, weights and
sums are float32 whatever the features are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from medmaskrcnn_kernels.checks import check_batch_values, check_box_values, check_score_values
from medmaskrcnn_kernels.nms_portable import batched_nms_portable, nms_portable
from medmaskrcnn_kernels.roi_align_portable import SamplingPlan, make_plan, sample_maps, spread_gradient

Number = TypeVar("Number", int, float)


@torch.library.custom_op("medmaskrcnn::roi_align", mutates_args=())
def roi_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    level: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of each box on ``maps[level]``; ``scales`` holds S numbers for each map, one map after the other."""
    check_box_values(boxes)
    check_batch_values(batch_index, maps[0].shape[0])
    shapes = [n for m in maps for n in m.shape[2:]]
    with torch.autocast(boxes.device.type, enabled=False):
        plan = _plan(maps[0].dtype, boxes, batch_index, level, shapes, scales, output_size, sampling_ratio, aligned)
        pooled = empty_like_map(maps[0], boxes.shape[0], output_size)
        sample_maps(plan, maps, pooled)
    return pooled


@roi_align.register_fake
def _(
    maps: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    level: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return empty_like_map(maps[0], boxes.shape[0], output_size)


@torch.library.custom_op("medmaskrcnn::roi_align_backward", mutates_args=())
def roi_align_backward(
    gradient: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    level: Tensor,
    images: int,
    shapes: Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: Sequence[bool],
) -> list[Tensor]:
    """Gradients of the maps, whose spatial ``shapes`` stand one after the other, in the dtype of ``gradient``."""
    with torch.autocast(boxes.device.type, enabled=False):
        output_size = gradient.shape[2:]
        plan = _plan(gradient.dtype, boxes, batch_index, level, shapes, scales, output_size, sampling_ratio, aligned)
        found = [g.to(gradient.dtype) for g in spread_gradient(plan, gradient, images)]
    return [g if last else g.contiguous() for g, last in zip(found, channels_last, strict=True)]


@roi_align_backward.register_fake
def _(
    gradient: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    level: Tensor,
    images: int,
    shapes: Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: Sequence[bool],
) -> list[Tensor]:
    channels, dims = gradient.shape[1], gradient.ndim - 2
    found = [gradient.new_empty(images, *s, channels).movedim(-1, 1) for s in split(shapes, dims)]
    return [g if last else g.contiguous() for g, last in zip(found, channels_last, strict=True)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, boxes, batch_index, level, scales, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(boxes, batch_index, level)
    shapes = [n for m in maps for n in m.shape[2:]]
    ctx.before = (maps[0].shape[0], shapes, scales, sampling_ratio, aligned, [is_channels_last(m) for m in maps])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return (roi_align_backward(gradient, *ctx.saved_tensors, *ctx.before), *[None] * 7)


roi_align.register_autograd(_differentiate, setup_context=_remember)


@torch.library.custom_op("medmaskrcnn::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that are kept."""
    check_box_values(boxes)
    check_score_values(scores)
    with torch.autocast(boxes.device.type, enabled=False):
        return nms_portable(boxes, scores, iou_threshold)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.custom_op("medmaskrcnn::batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that are kept, class by class."""
    check_box_values(boxes)
    check_score_values(scores)
    with torch.autocast(boxes.device.type, enabled=False):
        return batched_nms_portable(boxes, scores, idxs, iou_threshold)


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def is_channels_last(features: Tensor) -> bool:
    """True if the channels of a map lie next to each other in memory and the map is not also contiguous."""
    layout = torch.channels_last if features.ndim == 4 else torch.channels_last_3d
    return features.is_contiguous(memory_format=layout) and not features.is_contiguous()


def empty_like_map(feature: Tensor, count: int, spatial: Sequence[int]) -> Tensor:
    """``(count, C, *spatial)`` in the dtype and layout of a map ``(B, C, ...)``, not yet filled."""
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
    level: Tensor,
    shapes: Sequence[int],
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> SamplingPlan:
    dims = boxes.shape[1] // 2
    return make_plan(
        boxes.to(torch.float64 if dtype == torch.float64 else torch.float32),
        batch_index.long(),
        level,
        shapes=split(shapes, dims),
        scales=split(scales, dims),
        output_size=tuple(output_size),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )

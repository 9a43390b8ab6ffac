"""Input checks of all operators: wrong shapes, invalid boxes, batch indices out of range.

Checks of shapes and of values are separate: the former also work while a graph is traced, the latter need the values.
Value checks name the first bad row, and cost one host synchronisation each on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

MOST_ADAPTIVE_SAMPLES = 1 << 14
"""Samples per bin along one axis; a bin of this many cells lies almost entirely outside any feature map."""
FEATURE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def per_axis(value: float | Sequence[float], dims: int, *, name: str) -> tuple[float, ...]:
    """One number for every spatial axis; a single number applies to all of them.

    Raises:
        ValueError: if the count is not ``dims`` or a value is not positive.
    """
    values = tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),) * dims
    if len(values) != dims or not all(0 < v < float("inf") for v in values):
        raise ValueError(f"{name} must be one positive number or {dims} of them, got {value}")
    return values


def check_output_size(output_size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Bins along each spatial axis; a single integer applies to all of them."""
    sizes = per_axis(output_size, dims, name="output_size")
    if any(s != int(s) for s in sizes):
        raise ValueError(f"output_size must be whole numbers, got {output_size}")
    return tuple(int(s) for s in sizes)


def check_features(features: Tensor) -> int:
    """Number of spatial axes of a feature map ``(B, C, *spatial)``: 2 or 3.

    Raises:
        ValueError: if the map is not 4- or 5-dimensional or has an axis without cells.
        TypeError: if it does not hold floating point numbers.
    """
    if features.ndim not in (4, 5):
        raise ValueError(f"features must be (B, C, H, W) or (B, C, D, H, W), got shape {tuple(features.shape)}")
    if features.dtype not in FEATURE_DTYPES:
        raise TypeError(f"features must be float16, bfloat16, float32 or float64, got {features.dtype}")
    if 0 in features.shape[2:]:
        raise ValueError(f"features must have at least one cell on each spatial axis, got {tuple(features.shape)}")
    return features.ndim - 2


def check_boxes(boxes: Tensor, dims: int | None = None) -> int:
    """Number of spatial axes of ``boxes`` ``(N, 2S)``.

    Args:
        boxes: Minima then maxima in voxels, in array-axis order.
        dims: Number of spatial axes they must have; ``None`` takes 2 or 3 from their width.

    Raises:
        ValueError: for a wrong shape.
    """
    expected = "(N, 4) or (N, 6)" if dims is None else f"(N, {2 * dims}) for {dims} spatial axes"
    widths = (4, 6) if dims is None else (2 * dims,)
    if boxes.ndim != 2 or boxes.shape[1] not in widths:
        hint = "" if dims is None else f" Did you pass {5 - dims}D boxes?"
        raise ValueError(f"boxes must have shape {expected}, got {tuple(boxes.shape)}.{hint}")
    return boxes.shape[1] // 2


def box_rows(boxes: Tensor) -> Tensor:
    """Which rows ``(N,)`` of ``boxes`` ``(N, 2S)`` (voxels) are boxes: finite, and no maximum below its minimum."""
    dims = boxes.shape[1] // 2
    return torch.isfinite(boxes).all(1) & (boxes[:, dims:] >= boxes[:, :dims]).all(1)


def check_box_values(boxes: Tensor, *, name: str = "boxes") -> None:
    """Make sure that each row of ``boxes`` ``(N, 2S)`` (voxels) is a box.

    Raises:
        ValueError: naming the first row that is not finite or whose maximum lies below its minimum.
    """
    bad = ~box_rows(boxes)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        values = boxes[row].tolist()
        reason = "its maximum lies below its minimum" if all(map(isfinite, values)) else "it is not finite"
        raise ValueError(f"{name} row {row} is not a box: {reason}, got {values}. Minima come first, then maxima.")


def check_one_device(*tensors: Tensor) -> None:
    """Make sure that all tensors lie on one device.

    Raises:
        ValueError: if they do not.
    """
    devices = {str(t.device) for t in tensors}
    if len(devices) > 1:
        raise ValueError(f"features, boxes and batch_index must lie on one device, got {sorted(devices)}")


def check_batch_index(batch_index: Tensor, boxes: Tensor) -> None:
    """Make sure that ``batch_index`` ``(N,)`` holds the index of an image for each box ``(N, 2S)``.

    Raises:
        TypeError: if it does not hold integers.
        ValueError: for a wrong shape.
    """
    if batch_index.is_floating_point() or batch_index.is_complex() or batch_index.dtype == torch.bool:
        raise TypeError(f"batch_index must hold integers, got {batch_index.dtype}")
    if batch_index.shape != boxes.shape[:1]:
        raise ValueError(f"batch_index must have shape ({boxes.shape[0]},), got {tuple(batch_index.shape)}")


def check_batch_values(batch_index: Tensor, images: int) -> None:
    """Make sure that ``batch_index`` ``(N,)`` names one of ``images`` images for each box.

    Raises:
        ValueError: naming the first row outside ``0..images - 1``.
    """
    bad = (batch_index < 0) | (batch_index >= images)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"batch_index row {row} is {int(batch_index[row])}, but there are {images} images")


def check_adaptive_samples(bin_size: Tensor) -> None:
    """Refuse boxes for which adaptive sampling would take far too many samples.

    Args:
        bin_size: ``(N,)`` extent of each box's bins in cells, each of which takes that many samples.

    Raises:
        ValueError: if a bin is longer than ``MOST_ADAPTIVE_SAMPLES`` cells.
    """
    bad = ~(bin_size <= MOST_ADAPTIVE_SAMPLES)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"boxes row {row} would need {float(bin_size[row]):.3g} samples to a bin with sampling_ratio=0. "
            "Clip the boxes to the image, or set a sampling_ratio."
        )


def check_scores(scores: Tensor, boxes: Tensor) -> None:
    """Make sure that ``scores`` ``(N,)`` has an entry for each box ``(N, 2S)`` (voxels).

    Raises:
        ValueError: for a wrong shape.
    """
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must have shape ({boxes.shape[0]},), got {tuple(scores.shape)}")


def check_score_values(scores: Tensor) -> None:
    """Make sure that ``scores`` ``(N,)`` can be ordered.

    Raises:
        ValueError: naming the first row that is NaN.
    """
    bad = torch.isnan(scores)
    if bool(bad.any()):
        raise ValueError(f"scores row {int(bad.nonzero()[0])} is NaN and cannot be ordered")


def check_iou_threshold(iou_threshold: float) -> None:
    """Make sure that ``iou_threshold`` is within 0..1.

    Raises:
        ValueError: if it lies outside 0..1.
    """
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in 0..1, got {iou_threshold}")

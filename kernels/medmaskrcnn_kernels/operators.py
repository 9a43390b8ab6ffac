"""The public operators: arguments and shapes are checked here, then ``library.py`` is called.

Boxes are ``(N, 2S)`` throughout: S minima, then S maxima, in array-axis order, S = 2 or 3, in continuous voxel
coordinates of the input image (voxel ``i`` covers ``[i, i + 1)``).

On the CPU a row that is not a box, or names no image, raises a ValueError with its number. On a GPU, where checking
would make the host wait, such a row gives zeros (and is never kept by ``nms``), unless within ``checked()``.

Tensors may be subclasses, such as MONAI's ``MetaTensor``; results are plain tensors (``plain.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log2, nan

from torch import Tensor

from medmaskrcnn_kernels import library
from medmaskrcnn_kernels.checks import (
    check_batch_index,
    check_boxes,
    check_features,
    check_iou_threshold,
    check_one_device,
    check_output_size,
    check_scores,
    per_axis,
)
from medmaskrcnn_kernels.plain import plain


def roi_align(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Features of each box on a regular grid of bins, by linear interpolation (Mask R-CNN, section 3).

    Equal to ``torchvision.ops.roi_align`` in 2D, whose boxes are in x, y order, and the same rule in 3D.

    Args:
        features: ``(B, C, *spatial)``, 2 or 3 spatial axes; float16, bfloat16, float32 or float64.
        boxes: ``(N, 2S)`` in voxels of the image.
        batch_index: ``(N,)`` integers, image of each box.
        output_size: Bins along each axis; one number applies to all.
        spatial_scale: Cells of the map per voxel, ``1 / stride``; one number or one per axis.
        sampling_ratio: Samples per bin along each axis; 0 takes ``ceil(bin size)``.
        aligned: Place a cell's value at its centre. False is the older rule, off by half a cell.

    Returns:
        ``(N, C, *output_size)`` in the features' dtype and memory layout. Differentiable with respect to the
        features; boxes get no gradient.

    Raises:
        ValueError: for a row that is not a box or names no image (the message has its number), or wrong shapes.
    """
    features = plain(features)
    dims = check_features(features)
    scale = per_axis(spatial_scale, dims, name="spatial_scale")
    return _align([features], boxes, batch_index, [scale], [nan], output_size, sampling_ratio, aligned)


def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: int | Sequence[int],
    strides: Sequence[int | Sequence[int]],
    sampling_ratio: int = 2,
    aligned: bool = True,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """RoIAlign over a feature pyramid: each box reads the map that suits its size (FPN, equation 1).

    Args:
        features: Maps ``(B, C, *spatial)`` of increasing stride, each level twice as coarse on the last axis.
        boxes: ``(N, 2S)`` in voxels of the image.
        batch_index: ``(N,)`` integers, image of each box.
        output_size: Bins along each axis; one number applies to all.
        strides: Voxels per cell of each map, one number or one per axis.
        sampling_ratio: Samples per bin along each axis; 0 takes ``ceil(bin size)``.
        aligned: Place a cell's value at its centre.
        canonical_size: Box extent in voxels, over the last two axes, that belongs to ``canonical_level``.
        canonical_level: Level k0 of that extent: its stride on the last axis is ``2 ** k0``.

    Returns:
        ``(N, C, *output_size)`` in the features' dtype and memory layout.

    Raises:
        ValueError: as for :func:`roi_align`, and for maps that do not form a pyramid.
    """
    if not features or len(features) != len(strides):
        raise ValueError(f"features and strides must be lists of one length, got {len(features)} and {len(strides)}")
    features, boxes = [plain(feature) for feature in features], plain(boxes)
    dims = check_features(features[0])
    for number, feature in enumerate(features):
        same = feature.ndim == features[0].ndim and feature.shape[:2] == features[0].shape[:2]
        if not same or feature.dtype != features[0].dtype:
            raise ValueError(
                f"all maps must share batch, channels, dimensions and dtype: map {number} has "
                f"{tuple(feature.shape)} {feature.dtype}, map 0 {tuple(features[0].shape)} {features[0].dtype}"
            )
        check_features(feature)
    steps = [per_axis(s, dims, name="strides") for s in strides]
    check_one_device(*features, boxes)
    check_boxes(boxes, dims)
    levels = _pyramid_levels(steps)
    areas = least_areas(levels, canonical_size=canonical_size, canonical_level=canonical_level)
    scales = [tuple(1.0 / v for v in s) for s in steps]
    return _align(features, boxes, batch_index, scales, areas, output_size, sampling_ratio, aligned)


def _pyramid_levels(strides: Sequence[tuple[float, ...]]) -> list[int]:
    levels = [log2(s[-1]) for s in strides]
    if any(v != int(v) for v in levels) or any(b != a + 1 for a, b in pairwise(levels)):
        raise ValueError(f"strides on the last axis must be powers of 2, each twice the one before, got {strides}")
    return [int(v) for v in levels]


def least_areas(levels: Sequence[int], *, canonical_size: float, canonical_level: int) -> list[float]:
    """Area in voxels, over the last two axes, from which a box reads the second, third, ... of ``levels``.

    Equation 1 of FPN, ``floor(k0 + log2(sqrt(area) / canonical_size) + 1e-6)``, solved for the area; ``levels`` are
    consecutive and ascending, and boxes beyond either end read the first or the last. A single level has NaN, which no
    area reaches.
    """
    return [(canonical_size * 2.0 ** (level - canonical_level - 1e-6)) ** 2 for level in levels[1:]] or [nan]


def _align(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    scales: Sequence[tuple[float, ...]],
    areas: Sequence[float],
    output_size: int | Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    dims = features[0].ndim - 2
    boxes, batch_index = plain(boxes), plain(batch_index)
    check_one_device(*features, boxes, batch_index)
    check_boxes(boxes, dims)
    check_batch_index(batch_index, boxes)
    bins = check_output_size(output_size, dims)
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio must be 0 (adaptive) or positive, got {sampling_ratio}")
    flat = [value for scale in scales for value in scale]
    pooled: Tensor = library.roi_align(
        list(features), boxes.detach(), batch_index, flat, list(areas), list(bins), sampling_ratio, aligned
    )
    return pooled


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression in 2D and 3D; the same indices as ``torchvision.ops.nms`` in 2D.

    Args:
        boxes: ``(N, 2S)``; compared in float32 whatever their dtype.
        scores: ``(N,)``.
        iou_threshold: A box is dropped if it overlaps a better, kept one by more than this.

    Returns:
        Indices ``(K,)`` int64 of the kept boxes, by descending score, ties by ascending index.

    Raises:
        ValueError: for a row that is not a box or whose score is NaN, a threshold outside 0..1, or wrong shapes.
    """
    boxes, scores = plain(boxes), plain(scores)
    check_boxes(boxes)
    check_scores(scores, boxes)
    check_iou_threshold(iou_threshold)
    kept: Tensor = library.nms(boxes, scores, iou_threshold)
    return kept


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` class by class: boxes with different ``idxs`` ``(N,)`` never drop one another.

    Gives the indices ``(K,)`` int64 of the boxes ``(N, 2S)`` (voxels) that are kept.

    Boxes are compared as they are, not shifted apart by class, so nothing is rounded.
    """
    boxes, scores, idxs = plain(boxes), plain(scores), plain(idxs)
    check_boxes(boxes)
    check_scores(scores, boxes)
    check_iou_threshold(iou_threshold)
    if idxs.shape != scores.shape:
        raise ValueError(f"idxs must have shape {tuple(scores.shape)}, got {tuple(idxs.shape)}")
    kept: Tensor = library.batched_nms(boxes, scores, idxs, iou_threshold)
    return kept


def paste_masks(
    probabilities: Tensor, boxes: Tensor, windows: Tensor, *, threshold: float | None = None
) -> list[Tensor]:
    """Mask probabilities at the voxels of each instance's window, see ``paste.py`` for the rule.

    Args:
        probabilities: ``(N, M, ..., M)`` over the boxes' own extents.
        boxes: ``(N, 2S)`` voxel coordinates.
        windows: ``(N, 2S)`` integer, half-open voxel windows, e.g. from :func:`mask_windows`.
        threshold: Return boolean crops instead: where the probability reaches this.

    Returns:
        N crops, each of its window's shape, float32 (float64 for float64 probabilities); 0 outside the box.

    Raises:
        ValueError: for a row that is not a box or not a window, or wrong shapes.
    """
    probabilities, boxes, windows = plain(probabilities), plain(boxes), plain(windows)
    dims = check_boxes(boxes)
    if probabilities.ndim != dims + 1 or probabilities.shape[0] != boxes.shape[0]:
        expected = f"({boxes.shape[0]}, {', '.join(['M'] * dims)})"
        raise ValueError(f"probabilities must have shape {expected}, got {tuple(probabilities.shape)}")
    if 0 in probabilities.shape[1:]:
        raise ValueError(f"probabilities must have at least one cell along each axis, got {tuple(probabilities.shape)}")
    if windows.shape != boxes.shape or windows.is_floating_point():
        raise ValueError(f"windows must be integers {tuple(boxes.shape)}, got {windows.dtype} {tuple(windows.shape)}")
    check_one_device(probabilities, boxes, windows)
    return library.paste_masks(probabilities, boxes, windows, threshold)

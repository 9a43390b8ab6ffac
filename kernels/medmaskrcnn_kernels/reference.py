"""Reference of each operator in slow, obvious loops from its formula, against which implementations are tested.

Nothing here shares code with the implementations, and nothing is vectorised but the channels. Boxes are ``(N, 2S)``,
minima then maxima, in array-axis order, in voxels of the image; S may be any number of axes. Arguments are not checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil, floor, log2, prod, sqrt

import torch
from torch import Tensor


def roi_align(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: Sequence[int],
    spatial_scale: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Mean of the linearly interpolated samples of each bin (Mask R-CNN, section 3): ``(N, C, *output_size)``."""
    dims = features.ndim - 2
    pooled = features.new_zeros(len(boxes), features.shape[1], *output_size)
    for n, box in enumerate(boxes.tolist()):
        start, bin_size, samples = [], [], []
        for axis in range(dims):
            low = box[axis] * spatial_scale[axis] - (0.5 if aligned else 0)
            high = box[dims + axis] * spatial_scale[axis] - (0.5 if aligned else 0)
            length = high - low if aligned else max(high - low, 1)
            start.append(low)
            bin_size.append(length / output_size[axis])
            samples.append(sampling_ratio if sampling_ratio > 0 else ceil(bin_size[axis]))
        for bin_number in product(*[range(p) for p in output_size]):
            total = features.new_zeros(features.shape[1])
            for sample in product(*[range(g) for g in samples]):
                point = [start[a] + (bin_number[a] + (sample[a] + 0.5) / samples[a]) * bin_size[a] for a in range(dims)]
                total = total + interpolate(features[int(batch_index[n])], point)
            cell: tuple[int | slice, ...] = (n, slice(None), *bin_number)
            pooled[cell] = total / max(prod(samples), 1)
    return pooled


def interpolate(feature: Tensor, point: Sequence[float]) -> Tensor:
    """Value ``(C,)`` of a map ``(C, *spatial)`` at continuous cell indices; 0 beyond ``[-1, size]`` on any axis."""
    sizes = feature.shape[1:]
    if any(p < -1 or p > size for p, size in zip(point, sizes, strict=True)):
        return feature.new_zeros(feature.shape[0])
    clamped = [min(max(p, 0.0), size - 1.0) for p, size in zip(point, sizes, strict=True)]
    total = feature.new_zeros(feature.shape[0])
    for corner in product((0, 1), repeat=len(sizes)):
        cell = [min(int(p) + c, size - 1) for p, c, size in zip(clamped, corner, sizes, strict=True)]
        weight = prod((p - int(p)) if c else 1 - (p - int(p)) for p, c in zip(clamped, corner, strict=True))
        total = total + weight * feature.flatten(1)[:, flat_index(cell, sizes)]
    return total


def flat_index(cell: Sequence[int], sizes: Sequence[int]) -> int:
    """Index of a cell in the flattened map, last axis fastest."""
    place = 0
    for index, size in zip(cell, sizes, strict=True):
        place = place * size + index
    return place


def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: Sequence[int],
    strides: Sequence[Sequence[int]],
    sampling_ratio: int = 2,
    aligned: bool = True,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """:func:`roi_align` of each box on the map whose last stride is 2^level, level by equation 1 of FPN.

    ``features`` are ``(B, C, *spatial)`` each, ``boxes`` ``(N, 2S)`` in voxels of the image. Gives
    ``(N, C, *output_size)``.
    """
    dims = features[0].ndim - 2
    levels = [int(log2(stride[-1])) for stride in strides]
    pooled = []
    for n, box in enumerate(boxes.tolist()):
        size = sqrt((box[2 * dims - 1] - box[dims - 1]) * (box[2 * dims - 2] - box[dims - 2]))
        level = floor(canonical_level + log2(size / canonical_size) + 1e-6) if size > 0 else levels[0]
        which = levels.index(min(max(level, levels[0]), levels[-1]))
        pooled.append(
            roi_align(
                features[which],
                boxes[n : n + 1],
                batch_index[n : n + 1],
                output_size=output_size,
                spatial_scale=[1 / s for s in strides[which]],
                sampling_ratio=sampling_ratio,
                aligned=aligned,
            )
        )
    return torch.cat(pooled) if pooled else features[0].new_zeros(0, features[0].shape[1], *output_size)


def iou(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two boxes ``(2S,)``, each step in float32; 0 where both have no extent."""
    dims = len(one) // 2
    low, high = torch.maximum(one[:dims], other[:dims]), torch.minimum(one[dims:], other[dims:])
    overlap, size, other_size = (
        _product(e.float()) for e in ((high - low).clamp(min=0), one[dims:] - one[:dims], other[dims:] - other[:dims])
    )
    union = size + other_size - overlap
    return float(overlap / union) if union > 0 else 0.0


def _product(factors: Tensor) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Best box first, keep each that overlaps no kept one by more than the threshold; ties by ascending index.

    ``boxes`` are ``(N, 2S)`` in voxels, ``scores`` ``(N,)``; gives the indices ``(K,)`` int64 of those kept.
    """
    boxes = boxes.float()
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        if all(iou(boxes[j], boxes[i]) <= iou_threshold for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` where only boxes of one class (``idxs`` ``(N,)``) suppress one another; indices ``(K,)`` int64."""
    kept: list[int] = []
    for label in set(idxs.tolist()):
        own = [i for i in range(len(boxes)) if idxs[i] == label]
        kept += [own[int(k)] for k in nms(boxes[own], scores[own], iou_threshold)]
    return torch.tensor(sorted(kept, key=lambda i: (-float(scores[i]), i)), dtype=torch.int64)


def paste_mask(probability: Tensor, box: Sequence[float], window: Sequence[int]) -> Tensor:
    """Value of one mask ``(M, ..., M)`` at the centre of each voxel of a half-open window ``(2S,)``."""
    dims, cells = probability.ndim, probability.shape
    crop = probability.new_zeros([window[dims + a] - window[a] for a in range(dims)])
    for place in product(*[range(k) for k in crop.shape]):
        centre = [window[a] + place[a] + 0.5 for a in range(dims)]
        if not all(box[a] <= centre[a] < box[dims + a] for a in range(dims)):
            continue
        # Between the outermost cell centres; the half cell up to the box's faces repeats the border cells.
        point = [
            min(max((centre[a] - box[a]) / (box[dims + a] - box[a]) * cells[a] - 0.5, 0.0), cells[a] - 1.0)
            for a in range(dims)
        ]
        crop[place] = interpolate(probability[None], point)[0]
    return crop

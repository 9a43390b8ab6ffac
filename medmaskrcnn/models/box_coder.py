"""Box deltas: the encoding of a box relative to a reference box (Faster R-CNN, eq. 2; R-CNN, appendix C).

Per axis ``t = weight * (centre - centre_ref) / edge_ref`` and ``u = weight * log(edge / edge_ref)``; all ``t``, then
all ``u``, in array-axis order. Everything is float32. MONAI's coder checks its values on the host at every call and
refuses boxes without extent; this one clamps instead and never synchronises. Boxes may be of a subclass of tensors;
results are plain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medmaskrcnn_kernels.plain import plain

LOG_SCALE_LIMIT = math.log(1000.0 / 16)
"""Largest log size change of a decoded delta, which keeps ``exp`` finite (Detectron's constant)."""
_SMALLEST_EDGE_VOX = 1e-6


@dataclass(frozen=True)
class BoxCoder:
    """Encodes and decodes boxes; the weights bring the variance of the targets close to one.

    Attributes:
        centre_weight: Multiplies the shifts; 1 in the RPN, 10 in the box head.
        size_weight: Multiplies the log sizes; 1 in the RPN, 5 in the box head.
    """

    centre_weight: float = 1.0
    size_weight: float = 1.0

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """Deltas ``(N, 2S)`` that take ``references`` to ``boxes``, both ``(N, 2S)`` in voxels."""
        centre, edge = _centre_and_edge(boxes)
        ref_centre, ref_edge = _centre_and_edge(references)
        shift = (centre - ref_centre) / ref_edge * self.centre_weight
        return torch.cat([shift, torch.log(edge / ref_edge) * self.size_weight], dim=-1)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Boxes ``(..., 2S)`` in voxels from deltas ``(..., 2S)`` and references that broadcast against them."""
        deltas, references = plain(deltas), plain(references)
        dims = deltas.shape[-1] // 2
        minima, maxima = references[..., :dims].float(), references[..., dims:].float()
        edge = maxima - minima
        centre = minima + 0.5 * edge
        deltas = deltas.float()
        new_centre = deltas[..., :dims] / self.centre_weight * edge + centre
        growth = (deltas[..., dims:] / self.size_weight).clamp(max=LOG_SCALE_LIMIT)
        half = 0.5 * torch.exp(growth) * edge
        return torch.cat([new_centre - half, new_centre + half], dim=-1)


def _centre_and_edge(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = plain(boxes)
    dims = boxes.shape[-1] // 2
    minima, maxima = boxes[..., :dims].float(), boxes[..., dims:].float()
    return (minima + maxima) / 2, (maxima - minima).clamp(min=_SMALLEST_EDGE_VOX)


def clip_boxes(boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Boxes ``(..., 2S)`` clipped to an image of spatial ``shape`` (voxels)."""
    boxes = plain(boxes)
    limit = torch.tensor([*shape, *shape], dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limit)


def enlarge_boxes(boxes: Tensor, share: float) -> Tensor:
    """Boxes ``(..., 2S)`` grown on every side by a share of their edge (voxels)."""
    if not share:
        return boxes
    dims = boxes.shape[-1] // 2
    reach = (boxes[..., dims:] - boxes[..., :dims]) * share
    return torch.cat([boxes[..., :dims] - reach, boxes[..., dims:] + reach], dim=-1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU ``(N, M)`` float32 of boxes ``(N, 2S)`` and ``(M, 2S)`` (voxels); 0 where both are empty."""
    dims = a.shape[-1] // 2
    a, b = plain(a).float(), plain(b).float()
    shared = box_intersection(a, b)
    volume_a = (a[:, dims:] - a[:, :dims]).prod(dim=-1)
    volume_b = (b[:, dims:] - b[:, :dims]).prod(dim=-1)
    return shared / (volume_a[:, None] + volume_b[None] - shared).clamp(min=_SMALLEST_EDGE_VOX)


def box_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Volume ``(N, M)`` float32 that boxes ``(N, 2S)`` and ``(M, 2S)`` share (voxels)."""
    dims = a.shape[-1] // 2
    a, b = plain(a).float(), plain(b).float()
    low = torch.maximum(a[:, None, :dims], b[None, :, :dims])
    high = torch.minimum(a[:, None, dims:], b[None, :, dims:])
    return (high - low).clamp(min=0).prod(dim=-1)

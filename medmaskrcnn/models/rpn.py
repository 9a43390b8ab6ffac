"""Region proposal network (Ren et al. 2015, section 3.1) on every level of the pyramid.

Letters: ``B`` images, ``A`` anchors per cell, ``S`` spatial dims, ``M`` anchors of all levels, ``L`` objectness logits
per anchor: one, or one per class, of which the largest then is the anchor's objectness.
Names: *objectness* are logits before the sigmoid, *deltas* are box offsets, *proposals* are boxes in voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.box_coder import BoxCoder, clip_boxes
from medmaskrcnn.models.layers import CONV
from medmaskrcnn.settings import RPNSettings
from medmaskrcnn_kernels import batched_nms

RPN_CODER = BoxCoder()
_TINY_DEPTH = 2  # slices


class RPNHead(nn.Module):
    """A 3-wide convolution and two 1-wide ones, shared by all levels (FPN, section 4.1)."""

    def __init__(self, *, spatial_dims: int, channels: int, anchors_per_cell: int, logits: int = 1) -> None:
        super().__init__()
        conv = CONV[spatial_dims]
        self.logits = logits
        self.conv = conv(channels, channels, 3, padding=1)
        self.objectness = conv(channels, anchors_per_cell * logits, 1)
        self.deltas = conv(channels, anchors_per_cell * 2 * spatial_dims, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Pyramid levels to objectness ``(B, cells * A)`` and deltas ``(B, cells * A, 2S)`` per level, float32."""
        objectness, deltas = self.all_logits(pyramid)
        return [largest_logit(level) for level in objectness], deltas

    def all_logits(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As :meth:`forward`, with all objectness logits ``(B, cells * A, L)`` of each level."""
        objectness, deltas = [], []
        for level in pyramid:
            with _full_precision_if_tiny(level) as x:
                hidden = F.relu_(self.conv(x))
            with torch.autocast(hidden.device.type, enabled=False):  # logits and deltas stay in float32
                hidden = hidden.float()
                objectness.append(_cells_last(self.objectness(hidden), self.logits))
                deltas.append(_cells_last(self.deltas(hidden), 2 * (level.ndim - 2)))
        return objectness, deltas


def largest_logit(objectness: Tensor) -> Tensor:
    """Objectness ``(..., M)`` of logits ``(..., M, L)``; equal ones share the gradient."""
    return objectness.squeeze(-1) if objectness.shape[-1] == 1 else objectness.amax(-1)


@contextmanager
def _full_precision_if_tiny(level: Tensor) -> Iterator[Tensor]:
    """Disable autocast in training for a map of a few slices, which costs nothing in float32.

    The weight gradient of a bf16 convolution is wrong on the CPU if the map is two slices deep (oneDNN in torch 2.15
    reads uninitialised memory). The forward pass is correct.
    """
    if torch.is_grad_enabled() and level.ndim == 5 and level.shape[2] <= _TINY_DEPTH:
        with torch.autocast(level.device.type, enabled=False):
            yield level.float()
    else:
        yield level


def _cells_last(x: Tensor, values: int) -> Tensor:
    """``(B, A * values, *map)`` to ``(B, cells * A, values)``, in the order of :func:`grid_anchors`."""
    batch = x.shape[0]
    return x.flatten(2).transpose(1, 2).reshape(batch, -1, values)


def top_n(scores: Tensor, n: int) -> Tensor:
    """Indices of the ``n`` largest of ``(M,)`` scores, largest first, ties by index."""
    if scores.device.type == "cpu" and len(scores) > n:  # sorting only the candidates takes a tenth of the time
        few = torch.nonzero(scores >= scores.topk(n, sorted=False).values.min()).flatten()
        return few[torch.sort(scores[few], descending=True, stable=True).indices[:n]]
    return torch.sort(scores, descending=True, stable=True).indices[:n]


def filter_proposals(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_shape: tuple[int, ...],
    settings: RPNSettings,
) -> Tensor:
    """Proposals of one image, by descending objectness.

    Args:
        objectness: Per level ``(cells * A,)``.
        deltas: Per level ``(cells * A, 2S)``.
        anchors: Per level ``(cells * A, 2S)`` in voxels.
        image_shape: Spatial shape of the image without its padding.
        settings: Number of proposals to keep and NMS threshold.

    Returns:
        ``(P, 2S)`` float32 boxes in voxels, clipped to the image.
    """
    boxes, scores, levels = candidates(objectness, deltas, anchors, image_shape, settings)
    kept = batched_nms(boxes, scores, levels, settings.nms_iou)[: settings.post_nms_top_n]
    return boxes[kept]


def candidates(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_shape: tuple[int, ...],
    settings: RPNSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best anchors of each level with the RPN's deltas applied: the input of the NMS in :func:`filter_proposals`.

    Arguments are those of :func:`filter_proposals`.

    Returns:
        ``(M, 2S)`` float32 boxes in voxels, clipped to the image, their objectness ``(M,)`` in 0..1 and level ``(M,)``.
    """
    boxes, scores, levels = [], [], []
    for level, (logits, offsets, reference) in enumerate(zip(objectness, deltas, anchors, strict=True)):
        best = top_n(logits, settings.pre_nms_top_n)
        boxes.append(clip_boxes(RPN_CODER.decode(offsets[best], reference[best]), image_shape))
        scores.append(logits[best].sigmoid())
        levels.append(torch.full_like(best, level))
    all_boxes, all_scores, all_levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
    dims = len(image_shape)
    edges = all_boxes[:, dims:] - all_boxes[:, :dims]
    large = torch.nonzero((edges >= settings.min_size).all(dim=1)).flatten()
    return all_boxes[large], all_scores[large], all_levels[large]

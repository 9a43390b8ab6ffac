"""The box head: two fully connected layers, then class logits and one box per class (Fast R-CNN, section 2; FPN, 4.2).

If the backbone's last stage runs on the regions, average pooling takes the place of the two layers.

Letters: ``R`` regions, ``K`` classes without background, ``S`` spatial dims. Column 0 of the logits is background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.box_coder import BoxCoder, clip_boxes
from medmaskrcnn.settings import DetectionSettings
from medmaskrcnn_kernels import batched_nms

BOX_CODER = BoxCoder(centre_weight=10.0, size_weight=5.0)
_SMALLEST_EDGE_VOX = 1e-2  # thinner boxes are dropped (torchvision's constant)


class BoxHead(nn.Module):
    """Maps region features to class logits and box deltas."""

    def __init__(self, *, channels: int, bins: int, spatial_dims: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.fc1 = nn.Linear(channels * bins**spatial_dims, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classes = nn.Linear(hidden, classes + 1)
        self.deltas = nn.Linear(hidden, (classes + 1) * 2 * spatial_dims)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """``(R, C, *bins)`` to logits ``(R, K + 1)`` and deltas ``(R, K + 1, 2S)``, both float32."""
        hidden = F.relu_(self.fc2(F.relu_(self.fc1(regions.flatten(1)))))
        return _classes_and_deltas(self.classes, self.deltas, hidden, self.spatial_dims)


class MeanBoxHead(nn.Module):
    """Class and box from the mean over a region that went through the backbone's last stage (Mask R-CNN, figure 4)."""

    def __init__(self, *, channels: int, spatial_dims: int, classes: int) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.classes = nn.Linear(channels, classes + 1)
        self.deltas = nn.Linear(channels, (classes + 1) * 2 * spatial_dims)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`BoxHead.forward`."""
        return _classes_and_deltas(self.classes, self.deltas, regions.flatten(2).mean(dim=2), self.spatial_dims)


def _classes_and_deltas(classes: nn.Linear, deltas: nn.Linear, hidden: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    with torch.autocast(hidden.device.type, enabled=False):  # logits and deltas stay in float32
        hidden = hidden.float()
        return classes(hidden), deltas(hidden).unflatten(1, (-1, 2 * dims))


@dataclass(frozen=True)
class Detections:
    """Detections in one input tensor, by descending score.

    Attributes:
        boxes: ``(N, 2S)`` float32, voxels of the input tensor.
        labels: ``(N,)`` int64, 0 is the first class (not background).
        scores: ``(N,)`` float32, softmax probability of the class.
        mask_probabilities: ``(N, *(M,) * S)`` float32 in the coordinates of the mask's box, or ``None``.
        mask_boxes: ``(N, 2S)``, the regions that the masks cover, where they are larger than ``boxes``.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    mask_probabilities: Tensor | None = None
    mask_boxes: Tensor | None = None


def postprocess_detections(
    logits: Tensor, deltas: Tensor, proposals: Tensor, image_shape: tuple[int, ...], settings: DetectionSettings
) -> Detections:
    """Decode, threshold and suppress (NMS per class) the regions of one image.

    Args:
        logits: ``(R, K + 1)``.
        deltas: ``(R, K + 1, 2S)``.
        proposals: ``(R, 2S)`` in voxels.
        image_shape: Spatial shape of the image without its padding.
        settings: Thresholds.
    """
    found, _ = decode_and_threshold(logits, deltas, proposals, image_shape, settings)
    kept = batched_nms(found.boxes, found.scores, found.labels, settings.nms_iou)[: settings.detections_per_img]
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept])


def postprocess_batch(
    logits: Tensor,
    deltas: Tensor,
    proposals: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, ...]],
    settings: DetectionSettings,
) -> list[Detections]:
    """:func:`postprocess_detections` for each image of a batch, whose regions stand one after the other."""
    counts = [len(boxes) for boxes in proposals]
    parts = zip(logits.split(counts), deltas.split(counts), proposals, image_shapes, strict=True)
    return [postprocess_detections(*part, settings) for part in parts]


def with_masks(
    found: Sequence[Detections], masks: Sequence[Tensor], regions: Sequence[Tensor] | None
) -> list[Detections]:
    """Detections with the masks of their boxes, or of the larger ``regions`` around them."""
    places = [None] * len(found) if regions is None else regions
    return [
        replace(one, mask_probabilities=mask, mask_boxes=region)
        for one, mask, region in zip(found, masks, places, strict=True)
    ]


def decode_and_threshold(
    logits: Tensor, deltas: Tensor, proposals: Tensor, image_shape: tuple[int, ...], settings: DetectionSettings
) -> tuple[Detections, Tensor]:
    """Decode each region's box of every class whose score passes the threshold: the input of the suppression.

    Arguments are those of :func:`postprocess_detections`.

    Returns:
        Detections by region, then class, and the index ``(N,)`` of the region of each.
    """
    dims = len(image_shape)
    scores = logits.softmax(dim=-1)[:, 1:]
    boxes = clip_boxes(BOX_CODER.decode(deltas, proposals[:, None]), image_shape)[:, 1:]
    edges = boxes[..., dims:] - boxes[..., :dims]
    regions, labels = torch.nonzero(
        (scores > settings.score_thresh) & (edges >= _SMALLEST_EDGE_VOX).all(dim=-1), as_tuple=True
    )
    return Detections(boxes[regions, labels], labels, scores[regions, labels]), regions

"""The semantic head: a logit of every class for every voxel, from the finest map (Retina U-Net, Jaeger et al. 2020).

Every voxel of a window teaches it, while the mask head sees sampled regions only. In each region the logits of the
region's class are added to those of the mask head, which is left to tell objects of one class apart and to correct.
Classes do not compete, since a tumour may lie in an organ.

Letters: ``B`` images, ``C`` channels, ``K`` classes, ``R`` regions, ``S`` spatial dims.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmaskrcnn.models.fpn import Pyramid
from medmaskrcnn.models.layers import CONV, TRANSPOSED_CONV
from medmaskrcnn.models.losses import Term
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn_kernels import roi_align

_GROUP_CHANNELS = 8


class SemanticHead(nn.Module):
    """Two convolutions on P2, a transposed one to half as many channels where the output is finer, a logit per class.

    Attributes:
        stride: Stride of the output per spatial axis, in voxels of the input.
    """

    def __init__(
        self, *, channels: int, hidden: int, stride: tuple[int, ...], finer: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        dims = len(stride)
        conv, deconv = CONV[dims], TRANSPOSED_CONV[dims]
        self.stride = tuple(s // f for s, f in zip(stride, finer, strict=True))
        self.convs = nn.ModuleList(conv(a, hidden, 3, padding=1, bias=False) for a in (channels, hidden))
        self.norms = nn.ModuleList(nn.GroupNorm(max(1, hidden // _GROUP_CHANNELS), hidden) for _ in self.convs)
        fine = max(1, hidden // 2) if max(finer) > 1 else hidden
        self.upsample = deconv(hidden, fine, finer, stride=finer) if max(finer) > 1 else None  # type: ignore[arg-type]
        self.logits = conv(fine, classes, 1)
        for layer in (*self.convs, *([self.upsample] if self.upsample is not None else [])):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.constant_(self.logits.bias, -2.0)  # type: ignore[arg-type]  # most voxels belong to no class

    def forward(self, finest: Tensor) -> Tensor:
        """P2 ``(B, C, *map)`` to logits ``(B, K, *map * finer)``, float32."""
        x = finest
        for layer, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu_(norm(layer(x)))
        if self.upsample is not None:
            x = F.relu_(self.upsample(x))
        with torch.autocast(x.device.type, enabled=False):  # logits stay in float32
            return _pointwise(self.logits, x.float())


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of width 1 as a matrix product: in 3D and with one thread torch's own copies its input first."""
    return torch.matmul(conv.weight.flatten(1), x.flatten(2)).add_(conv.bias[:, None]).unflatten(2, x.shape[2:])  # type: ignore[operator,index,arg-type]


def build_semantic_head(pyramid: Pyramid, settings: ModelSettings) -> SemanticHead | None:
    """The head that ``settings.semantic`` describes, or ``None``."""
    wanted = settings.semantic
    if wanted is None:
        return None
    stride = tuple(pyramid.strides[0])
    finer = tuple(2 if wanted.finer and s > 1 else 1 for s in stride)
    return SemanticHead(
        channels=pyramid.channels,
        hidden=wanted.channels,
        stride=stride,
        finer=finer,
        classes=len(settings.class_names),
    )


def pool_own_class(
    logits: Tensor, boxes: Sequence[Tensor], labels: Tensor, *, stride: Sequence[int], bins: int
) -> Tensor:
    """Semantic logits of each region's class on the bins of its mask.

    Args:
        logits: ``(B, K, *map)``.
        boxes: Per image ``(n, 2S)``, voxels of the input.
        labels: ``(R,)`` class of each region, image by image.
        stride: Of the map per axis, in voxels.
        bins: Bins of a mask per axis.

    Returns:
        ``(R, *(bins,) * S)`` float32.
    """
    image = torch.cat([torch.full((len(b),), i, dtype=torch.int64, device=b.device) for i, b in enumerate(boxes)])
    maps = logits.flatten(0, 1).unsqueeze(1)  # each class of each image as an image of one channel
    index = image * logits.shape[1] + labels
    pooled = roi_align(
        maps, torch.cat(list(boxes)), index, output_size=bins, spatial_scale=[1.0 / s for s in stride], sampling_ratio=1
    )
    return pooled[:, 0]


def semantic_targets(target: Targets, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the semantic head shall output for an image.

    Args:
        target: The objects of an image, with masks.
        shape: Classes, then the map: ``(K, *map)``.

    Returns:
        The ``A`` classes that were annotated ``(A,)`` int64; the share of each cell of the map that objects of each
        of them fill ``(A, *map)`` float32; the share of each cell that is known, ``(*map)`` float32, or ``None``
        where nothing is ignored.

    Raises:
        ValueError: if there are no masks.
    """
    if target.masks is None:
        raise ValueError("a model with a semantic head needs masks in its targets")
    masks, full = target.masks, 255.0 if target.masks.dtype == torch.uint8 else 1.0
    classes = torch.arange(shape[0], device=masks.device)
    if target.unknown is not None:
        classes = classes[~target.unknown]
    truth = masks.new_zeros((len(classes), *masks.shape[1:]))
    rows = {label: row for row, label in enumerate(classes.tolist())}
    for label, mask in zip(target.labels.tolist(), masks, strict=True):
        if label in rows:
            torch.maximum(truth[rows[label]], mask, out=truth[rows[label]])
    known = None
    if target.ignored_mask is not None:
        known = (1 - _cell_means(target.ignored_mask[None].float() / full, shape[1:]))[0]
    return classes, _cell_means(truth.float() / full, shape[1:]), known


def _cell_means(values: Tensor, shape: Sequence[int]) -> Tensor:
    """``(K, *spatial)`` to ``(K, *shape)``: the mean of the voxels of each cell."""
    factors = [-(-n // m) for n, m in zip(values.shape[1:], shape, strict=True)]
    if max(factors) == 1:
        return values
    pool = F.avg_pool3d if len(factors) == 3 else F.avg_pool2d
    return pool(values[None], factors, ceil_mode=True, count_include_pad=False)[0]


def semantic_term(logits: Tensor, targets: Sequence[Targets]) -> Term:
    """Cross-entropy of every class, summed over classes, and Dice of the classes in the image; a sum over images.

    Classes that were not annotated in an image, and voxels to ignore, take no part.

    Args:
        logits: ``(B, K, *map)``.
        targets: The objects of each image.

    Raises:
        ValueError: as :func:`semantic_targets`.
    """
    total = logits.new_zeros(())
    for own, target in zip(logits, targets, strict=True):
        classes, truth, known = semantic_targets(target, own.shape)
        if len(classes) < len(own):
            own = own[classes]
        each = F.binary_cross_entropy_with_logits(own, truth, weight=known, reduction="none")
        total = total + each.flatten(1).mean(1).sum()
        wanted = truth if known is None else truth * known
        there = torch.nonzero(wanted.flatten(1).amax(1) > 0).flatten()
        if len(there):
            probability, wanted = own[there].sigmoid(), wanted[there]
            if known is not None:
                probability = probability * known
            both, sums = (probability * wanted).flatten(1).sum(1), (probability + wanted).flatten(1).sum(1)
            total = total + (1 - (2 * both + 1) / (sums + 1)).mean()
    return Term(total, len(targets))

"""Resampling along the axes of an array, the field of view kept: torch's linear interpolation, one plane at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_SLICES_PER_PASS = 32  # bounds memory on long volumes


def resize(image: Tensor, shape: Sequence[int], *, antialias: bool) -> Tensor:
    """Linear interpolation of ``(C, D, H, W)`` float32 to ``(C, *shape)``.

    Voxel coordinates scale by ``new / old`` per axis (edges of the field of view coincide). With ``antialias`` a
    triangle filter as wide as the new voxel is applied where an axis shrinks.
    """
    depth, height, width = (int(n) for n in shape)
    if image.shape[2:] != (height, width):
        parts = [_interpolate(p, (height, width), antialias) for p in image.split(_SLICES_PER_PASS, dim=1)]
        image = torch.cat(parts, dim=1)
    if image.shape[1] != depth:
        columns = _interpolate(image.flatten(2)[None], (depth, height * width), antialias)  # H * W keeps its length
        image = columns[0].reshape(image.shape[0], depth, height, width)
    return image


def resize_matrix(old: int, new: int, *, antialias: bool) -> Tensor:
    """The ``(new, old)`` matrix that :func:`resize` applies along one axis; rows sum to one."""
    return _interpolate(torch.eye(old)[None, None], (new, old), antialias)[0, 0]


def _interpolate(planes: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    if size[1] == 1 < size[0]:  # torch 2.15's antialias goes wrong along the rows where one column comes out
        return _interpolate(planes.mT.contiguous(), (1, size[0]), antialias).mT.contiguous()
    return F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=antialias)

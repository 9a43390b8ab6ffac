"""Images of a call of the network, one tensor: padded at the far end to the strides of the backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn.settings import ModelSettings
from medmaskrcnn_kernels.plain import plain


def pad_to_multiple(tensor: Tensor, multiples: tuple[int, ...]) -> Tensor:
    """Pad ``(..., *spatial)`` with zeros at the far end of the last axes, each to a multiple (voxels)."""
    return pad_to(tensor, [-(-n // m) * m for n, m in zip(tensor.shape[-len(multiples) :], multiples, strict=True)])


def pad_to(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Pad ``(..., *spatial)`` with zeros at the far end of the last axes to ``shape`` (voxels)."""
    padding: list[int] = []
    for size, wanted in zip(reversed(tensor.shape), reversed(shape), strict=False):
        padding += [0, wanted - size]
    return F.pad(tensor, padding) if any(padding) else tensor


def batch_images(
    images: Sequence[Tensor] | Tensor, settings: ModelSettings, like: Tensor
) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Check images and join them to a batch, padded with zeros at the far end.

    Args:
        images: ``(C, *spatial)`` each, of any sizes, or a batch ``(B, C, *spatial)``; floating point numbers.
        settings: Settings of the network that is to take them.
        like: A tensor of the dtype that the network computes in.

    Returns:
        The batch ``(B, C, *spatial)``, every axis a multiple of the coarsest backbone stride, and the spatial shape of
        each image without its padding.

    Raises:
        TypeError: if an image is no tensor or does not hold floating point numbers.
        ValueError: if there is no image, or one has other channels or dimensions than the network, no voxel, or a value
            that is not finite. The message has its number.
    """
    if not isinstance(images, Tensor) and not isinstance(images, Sequence):
        raise TypeError(f"images must be a list of tensors or one batch, got {type(images).__name__}")
    if isinstance(images, Tensor) and images.ndim != settings.spatial_dims + 2:
        raise ValueError(f"a batch of images must have shape {_expected('B, ', settings)}, got {tuple(images.shape)}")
    if not len(images):
        raise ValueError("the network needs at least one image, got none")
    each = [_checked(f"images[{i}]", image, settings) for i, image in enumerate(images)]
    strides = settings.backbone.strides[-1]
    largest = [max(image.shape[1 + axis] for image in each) for axis in range(settings.spatial_dims)]
    shape = [-(-n // stride) * stride for n, stride in zip(largest, strides, strict=True)]
    return torch.stack([pad_to(image.to(like.dtype), shape) for image in each]), [tuple(i.shape[1:]) for i in each]


def _checked(name: str, image: Tensor, settings: ModelSettings) -> Tensor:
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(image).__name__}")
    if image.ndim != settings.spatial_dims + 1 or image.shape[0] != settings.input_channels or 0 in image.shape:
        raise ValueError(f"{name} must have shape {_expected('', settings)}, got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise TypeError(f"{name} must hold floating point numbers, normalised as in training, got {image.dtype}")
    image = plain(image)
    if not bool(image.isfinite().all()):
        raise ValueError(f"{name} holds values that are not finite (NaN or infinity)")
    return image


def _expected(batch: str, settings: ModelSettings) -> str:
    return f"({batch}{settings.input_channels}, {'D, ' if settings.spatial_dims == 3 else ''}H, W)"

"""The dense part of a model file (backbone, FPN, RPN head), and example images to run it on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.model_file import read_model
from medmaskrcnn.inference.detect import slice_images, tile_windows
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.models.dense_part import DensePart
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.volume import Volume

DEFAULT_SIDE_2D = 512

T = TypeVar("T")


def read_dense_part(path: Path) -> tuple[DensePart, ModelFileSettings]:
    """Backbone, FPN and RPN head of a model file, in float32, and the file's settings.

    Raises:
        ModelFileError: if the file is damaged.
    """
    network, settings = read_model(path)
    return DensePart(network.pyramid, network.rpn_head).eval(), settings


def default_shape(settings: ModelFileSettings) -> tuple[int, ...]:
    """Shape of one image batch as the network receives it: a slice of 512 x 512, or a tile."""
    model, pad = settings.model, settings.preprocess.pad_multiple
    sides = settings.inference.tile if model.spatial_dims == 3 else (DEFAULT_SIDE_2D,) * 2
    return 1, model.input_channels, *(-(-n // m) * m for n, m in zip(sides, pad, strict=True))


def check_shape(shape: Sequence[int], settings: ModelFileSettings) -> tuple[int, ...]:
    """The shape of an image batch with the spatial shape given by the user.

    Raises:
        ModelFileError: if the network does not accept such images.
    """
    pad = settings.preprocess.pad_multiple
    if len(shape) != len(pad) or any(n < 1 or n % m for n, m in zip(shape, pad, strict=True)):
        raise ModelFileError(f"images of this model have {len(pad)} axes, multiples of {pad}; got {tuple(shape)}")
    return 1, settings.model.input_channels, *shape


def random_images(shape: Sequence[int]) -> Tensor:
    """Images ``(B, C, *spatial)`` for comparing two forms of a network: blobs and noise, the same every time."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn((*shape[:2], *(max(2, n // 16) for n in shape[2:])), generator=random)
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    blobs = torch.nn.functional.interpolate(coarse, tuple(shape[2:]), mode=mode)
    return blobs + 0.1 * torch.randn(tuple(shape), generator=random)


def images_of(volumes: Iterable[Volume], settings: ModelFileSettings, *, per_volume: int) -> Iterator[Tensor]:
    """Slices or tiles of scans as the network receives them, spread evenly over each scan.

    Args:
        volumes: Scans that the model is for.
        settings: The model's settings.
        per_volume: Maximum number per scan.

    Yields:
        ``(1, C, *spatial)`` float32.
    """
    for volume in volumes:
        tensor = prepare(volume, settings.preprocess).tensor
        if settings.model.spatial_dims == 2:
            chosen = spread(range(tensor.shape[1]), per_volume)
            parts = [slice_images(tensor, range(i, i + 1), settings.model.context_slices) for i in chosen]
        else:
            windows = spread(tile_windows(tensor.shape[1:], settings.inference), per_volume)
            cuts = [tuple(slice(a, b) for a, b in zip(low, high, strict=True)) for low, high in windows]
            parts = [tensor[(slice(None), *cut)][None] for cut in cuts]
        for part in parts:
            yield pad_to_multiple(part, settings.preprocess.pad_multiple)


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` items, evenly spaced from first to last."""
    count = min(most, len(items))
    return [items[round((i + 0.5) * len(items) / count - 0.5)] for i in range(count)]

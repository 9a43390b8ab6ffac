"""Random augmentation of a window with MONAI's transforms; image and object occupancies are transformed together.

Rotation, zoom, shift and elastic deformation are composed into one grid, so that every voxel is interpolated once.
Occupancies are interpolated like the image; boxes and masks are derived afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    RandAdjustContrast,
    RandAffineGrid,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    Randomizable,
    RandScaleIntensity,
    RandShiftIntensity,
    SmoothField,
)
from monai.transforms.utils import create_grid
from torch import Tensor

from medmaskrcnn.training.plan import AugmentSettings
from medmaskrcnn.training.warp import Crop, dense, sampling_grid, warp_crops, warp_image
from medmaskrcnn_kernels.plain import plain

Transform = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A user-defined transform: takes and returns ``image`` ``(C, *spatial)`` and ``masks`` ``(N, *spatial)``, float32
0..1. Random numbers should come from numpy's or torch's global generator, which are seeded per sample."""

_KNOTS = 5  # control points per axis of the elastic deformation
_AXES = "DHW"
_LINEAR = {2: "bilinear", 3: "trilinear"}
_BLURRED = 0.3  # share of samples that are blurred
_GREY = (0.299, 0.587, 0.114)  # weights of red, green, blue (ITU-R BT.601)


class Augmenter:
    """The random augmentation that a plan asks for.

    Args:
        settings: Strength of each transform.
        spatial_dims: 2 or 3, of the windows.
        transform: Applied last.
    """

    def __init__(self, settings: AugmentSettings, *, spatial_dims: int, transform: Transform | None = None) -> None:
        self.settings, self.dims, self.transform = settings, spatial_dims, transform
        self.flips = [_AXES.index(axis) - 3 for axis in settings.flip if spatial_dims == 3 or axis != "D"]
        self.affine = RandAffineGrid(**_affine_ranges(settings, spatial_dims))
        self.moves = any((settings.rotate_degrees, settings.zoom, settings.shift, settings.elastic))
        self.intensity = _intensity(settings)
        for change in (self.affine, *self.intensity):
            change.set_random_state(0)  # a state of its own, which is quicker to seed anew than to make anew

    def margin(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Voxels on each side of a window ``D, H, W`` that the spatial transforms may bring into it."""
        settings = self.settings
        if not self.moves:
            return (0,) * len(shape)
        reach = settings.zoom / 2 + settings.shift + math.sqrt(3) * settings.elastic
        turned = min(math.radians(settings.rotate_degrees), math.pi / 4)
        corner = (math.cos(turned) + math.sin(turned) - 1) / 2
        return tuple(
            math.ceil(n * (reach + (0.0 if axis == 0 else corner))) if n > 1 else 0 for axis, n in enumerate(shape)
        )

    def __call__(
        self, image: Tensor, crops: Sequence[Crop], random: np.random.Generator, shape: Sequence[int]
    ) -> tuple[Tensor, list[Crop]]:
        """Augment a window.

        Args:
            image: ``(C, *spatial)``, normalised; the window with its margin.
            crops: Its objects.
            random: Every random number comes from here.
            shape: Shape of the window without its margin.

        Returns:
            The augmented image ``(C, *shape)`` float32, and the objects in its voxels, in their order.
        """
        with _without_metadata():
            for axis in self.flips:
                if random.random() < 0.5:
                    crops = [crop.flipped(axis, image.shape[axis]) for crop in crops]
                    image = image.flip(axis)
            if self.moves:
                grid = sampling_grid(self._grid(random, shape), image.shape[1:])
                image, crops = warp_image(image, grid), warp_crops(crops, grid, image.shape[1:])
            image = image.float()
            for change in self.intensity:
                change.R.seed(_seed(random))
                image = change(image)
            if self.settings.colour and len(image) == 3:
                image = _colour(image, self.settings.colour, random)
        if self.transform is not None:
            np.random.seed(_seed(random))
            torch.manual_seed(_seed(random))
            changed = self.transform({"image": image, "masks": dense(crops, image.shape[1:]).float() / 255})
            image = plain(changed["image"])
            crops = [Crop((0,) * self.dims, mask) for mask in (plain(changed["masks"]) * 255).round().to(torch.uint8)]
        return image.float().contiguous(), list(crops)

    def _grid(self, random: np.random.Generator, shape: Sequence[int]) -> Tensor:
        """Source coordinates that rotate, zoom, shift and deform, as MONAI has them: voxels from the centre."""
        settings = self.settings
        grid = create_grid(shape, backend="torch", dtype=np.float32)
        if settings.elastic:
            knots = [min(_KNOTS, n) for n in shape]
            reach = settings.elastic * math.sqrt(3)  # half-width of a uniform draw with standard deviation ``elastic``
            field = SmoothField(
                knots,
                low=-reach,
                high=reach,
                channels=self.dims,
                spatial_size=tuple(shape),
                mode=_LINEAR[self.dims],
                align_corners=True,
            )
            field.set_random_state(_seed(random))
            grid[: self.dims] += field(randomize=True) * torch.tensor(shape).view(-1, *(1,) * self.dims)
        self.affine.R.seed(_seed(random))
        # The shift is a share of the window, whose size differs between oversampled and other windows.
        self.affine.translate_range = tuple(settings.shift * n for n in shape)
        return torch.as_tensor(self.affine(grid=grid))


@contextmanager
def _without_metadata() -> Iterator[None]:
    """MONAI's transforms on plain tensors: nothing here needs its record of affines; its setting is put back."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _affine_ranges(settings: AugmentSettings, dims: int) -> dict[str, Sequence[float]]:
    angle, zoom = math.radians(settings.rotate_degrees), settings.zoom
    return {"rotate_range": (angle, 0.0, 0.0) if dims == 3 else (angle,), "scale_range": (zoom,) * dims}


def _intensity(settings: AugmentSettings) -> list[Randomizable]:
    """The intensity transforms that are switched on, in the order in which these effects arise in a scanner."""
    changes: list[Randomizable] = []
    if settings.blur:
        sigma = (0.0, settings.blur)
        changes.append(RandGaussianSmooth(sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, prob=_BLURRED))
    if settings.gamma:
        changes.append(RandAdjustContrast(prob=1.0, gamma=(math.exp(-settings.gamma), math.exp(settings.gamma))))
    if settings.bias_field:
        changes.append(RandBiasField(coeff_range=(-settings.bias_field, settings.bias_field), prob=1.0))
    if settings.scale_intensity:
        changes.append(RandScaleIntensity(factors=settings.scale_intensity, prob=1.0))
    if settings.shift_intensity:
        changes.append(RandShiftIntensity(offsets=settings.shift_intensity, prob=1.0))
    if settings.noise:
        changes.append(RandGaussianNoise(prob=1.0, std=settings.noise))
    return changes


def _colour(image: Tensor, size: float, random: np.random.Generator) -> Tensor:
    """Change the saturation and the brightness of each channel of ``(3, *spatial)``."""
    shape = (3, *(1,) * (image.ndim - 1))
    grey = (image * torch.tensor(_GREY).view(shape)).sum(0, keepdim=True)
    saturated = grey + (image - grey) * (1 + random.uniform(-size, size))
    return saturated * torch.tensor(1 + random.uniform(-size, size, 3), dtype=torch.float32).view(shape)


def _seed(random: np.random.Generator) -> int:
    return int(random.integers(2**31))

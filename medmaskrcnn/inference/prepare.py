"""Preprocessing: from a scan to the network's tensor, with a record of how to undo it.

Steps: turn the axes (exact), fill values that are not finite, resample (linear), normalise intensities.
:class:`Preprocessed` records all that later steps need to bring boxes and masks back to the scan's voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn.inference.orientation import choose_axes
from medmaskrcnn.settings import PreprocessSettings
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.volume import Volume

NetworkRegion = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Half-open low and high indices D, H, W."""

_SLICES_PER_PASS = 32  # bounds memory on long volumes
_MOST_SAMPLES = 4_000_000  # voxels sampled for percentiles; a fixed stride keeps the sample reproducible


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A scan as the network sees it.

    Attributes:
        tensor: ``(C, D, H, W)`` float32 on the CPU, in the network's axes and spacing, not padded.
        axes: How the scan's axes were turned.
        turned_shape: Shape D, H, W of the scan after turning, in its own voxels.
    """

    tensor: Tensor
    axes: AxisMap
    turned_shape: tuple[int, int, int]

    @property
    def scale(self) -> tuple[float, float, float]:
        """Scan voxels per network voxel along the network's D, H, W."""
        d, h, w = (a / b for a, b in zip(self.turned_shape, self.tensor.shape[1:], strict=True))
        return d, h, w

    def box_in_turned(self, box_vox: ArrayLike) -> NDArray[np.float64]:
        """Convert a box ``(6,)``, minima then maxima along D, H, W, from the scan's voxels to the turned scan's."""
        order = self.axes.order
        stored = tuple(self.turned_shape[order.index(axis)] for axis in range(3))
        return np.asarray(self.axes.apply_boxes(np.asarray(box_vox, np.float64)[None], stored)[0])

    def window(self, box_turned: NDArray[np.float64], *, margin: int) -> NetworkRegion:
        """The network voxels that contain a box of the turned scan and a margin around it, clipped to the tensor.

        Args:
            box_turned: ``(6,)``, minima D, H, W, then maxima, voxel coordinates of the turned scan.
            margin: In network voxels.

        Returns:
            Half-open low and high indices D, H, W into :attr:`tensor`.
        """
        edges = zip(box_turned[:3], box_turned[3:], self.scale, self.tensor.shape[1:], strict=True)
        ends = [(max(0, math.floor(a / f) - margin), min(n, math.ceil(b / f) + margin)) for a, b, f, n in edges]
        (d0, d1), (h0, h1), (w0, w1) = ends
        return (d0, h0, w0), (d1, h1, w1)

    @property
    def whole(self) -> NetworkRegion:
        """The window that covers the whole tensor."""
        _, d, h, w = self.tensor.shape
        return (0, 0, 0), (d, h, w)


def prepare(volume: Volume, settings: PreprocessSettings) -> Preprocessed:
    """Turn, resample and normalise a scan as a model's settings require.

    Raises:
        ValueError: if the settings name a spacing in mm and the scan's spacing is unknown.
    """
    axes = choose_axes(volume.grid, settings.orientation)
    target = target_shape(volume, axes, settings)
    turned = np.array(axes.apply(volume.array), dtype=np.float32, order="C")  # a copy: the scan may be read-only
    image = fill_not_finite(torch.from_numpy(turned))
    resized = resize(image, target, antialias=settings.antialias)
    depth, height, width = turned.shape[1:]
    return Preprocessed(normalise(resized, settings), axes, (depth, height, width))


def turned_spacing(volume: Volume, axes: AxisMap) -> tuple[float, float, float] | None:
    """A scan's spacing in mm along the network's D, H, W; ``None`` if it is unknown."""
    if volume.spacing_mm is None:
        return None
    d, h, w = (volume.spacing_mm[axis] for axis in axes.order)
    return d, h, w


def target_shape(volume: Volume, axes: AxisMap, settings: PreprocessSettings) -> tuple[int, int, int]:
    """Shape D, H, W of the network's array for a scan."""
    shape = [volume.grid.shape[axis] for axis in axes.order]
    if settings.resize_min_max:
        smallest, largest = settings.resize_min_max
        # in double precision, as torchvision computes it in eager mode: one voxel more or less would shift every box
        factor = min(smallest / min(shape[1:]), largest / max(shape[1:]))
        return shape[0], max(1, int(shape[1] * factor)), max(1, int(shape[2] * factor))
    if not any(settings.spacing_mm):
        return shape[0], shape[1], shape[2]
    if volume.spacing_mm is None:
        raise ValueError(
            f"the settings ask for a spacing of {settings.spacing_mm} mm, but the scan does not tell its own; "
            "use a model that works in pixels"
        )
    spacing = [volume.spacing_mm[axis] for axis in axes.order]
    d, h, w = (
        n if wanted is None else max(1, round(n * own / wanted))
        for n, own, wanted in zip(shape, spacing, settings.spacing_mm, strict=True)
    )
    return d, h, w


def fill_not_finite(image: Tensor) -> Tensor:
    """Replace non-finite values of ``(C, D, H, W)`` (padding of some scanners) with its lowest finite one, else with 0.

    This is done before resampling, which would spread such a value to its neighbours.
    """
    if not image.numel() or all(torch.isfinite(end) for end in image.aminmax()):  # aminmax propagates NaN
        return image
    finite = torch.isfinite(image)
    lowest = image[finite].min() if bool(finite.any()) else torch.zeros(())
    return torch.where(finite, image, lowest)


def resize(image: Tensor, shape: Sequence[int], *, antialias: bool) -> Tensor:
    """Linear interpolation of ``(C, D, H, W)`` float32 to ``(C, *shape)``.

    Voxel coordinates scale by ``new / old`` per axis (the edges of the field of view coincide). With ``antialias`` a
    triangle filter scaled to the new voxel size is applied along each axis that shrinks.
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
    if size[1] == 1 < size[0]:  # antialias of torch 2.15 is wrong along the rows if the output has one column
        return _interpolate(planes.mT.contiguous(), (1, size[0]), antialias).mT.contiguous()
    return F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=antialias)


def normalise(image: Tensor, settings: PreprocessSettings) -> Tensor:
    """Normalise raw finite float32 ``(C, D, H, W)`` to ``(C', D, H, W)``; ``C'`` is C times the number of windows.

    Without windows ``C'`` is ``C``. With several windows the channels of the first window come first.
    """
    if settings.windows:
        mapped = torch.cat([_scaled(image, low, high - low).clamp_(0, 1) for low, high in settings.windows])
    elif settings.percentiles:
        lows, extents = _percentiles(image, settings.percentiles)
        mapped = _scaled(image, lows, extents).clamp_(0, settings.ceiling)
    else:
        low, high = settings.value_range
        mapped = _scaled(image, low, high - low)
    mean, std = (torch.tensor(x).view(-1, 1, 1, 1) for x in (settings.mean, settings.std))
    return mapped.sub_(mean).div_(std)


def _scaled(image: Tensor, low: float | Tensor, extent: float | Tensor) -> Tensor:
    """A new tensor, modified in place from here on, so that a large scan is copied once and not at every step."""
    return (image - low).div_(extent)


def _percentiles(image: Tensor, percentiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Low value and range of each channel, ``(C, 1, 1, 1)`` each: every sequence of a scan has its own scale."""
    lows, extents = [], []
    for channel in image:
        values = channel.flatten()[:: -(-channel.numel() // _MOST_SAMPLES)].numpy()
        ranks = [round(p / 100 * (len(values) - 1)) for p in percentiles]
        low, high = (float(value) for value in np.partition(values, ranks)[ranks])
        lows.append(low)
        extents.append(max(high - low, 1e-6))
    return torch.tensor(lows).view(-1, 1, 1, 1), torch.tensor(extents).view(-1, 1, 1, 1)

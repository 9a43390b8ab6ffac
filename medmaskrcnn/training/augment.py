"""One training sample from a case: a random window, then rotation, zoom and intensity changes.

Image and objects' occupancy are moved together; boxes are derived afterwards. Left and right are never swapped:
class names may have sides.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medmaskrcnn.config import Count, Settings
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.training.cases import LabelledCase, dense_occupancy

_INSIDE = 128  # occupancy, of 255, from which a voxel belongs to an object
_FAVOUR = 0.5  # share of windows with an object that the favoured class has
_KNOTS = 5  # per axis, of the smooth random fields
_LEAST_VOXELS = 4  # an object of which fewer lie in the window is left out


class AugmentSettings(Settings):
    """How samples are drawn.

    Attributes:
        patch: Window D, H, W in voxels of the network's grid; D is 1 for 2D and 2.5D models (neighbours come on top).
        foreground: Share of windows that are centred near an object, classes being equally likely.
        favoured: Index of a class that is the one in half of those windows: small objects among large ones.
        favoured_patch: Size of the windows drawn for the favoured class, ``patch`` if not given: a small object needs
            little around it, and a smaller window costs less. The loop's batch is then 1.
        rotate_degrees: Largest rotation in the H-W plane.
        zoom: Largest relative change of size, per axis.
        shift: Largest shift, as a share of the window, per axis.
        elastic: Deviation of a smooth random bending, as a share of half the window.
        shift_intensity, scale_intensity: Largest change per channel, in units of the normalised image.
        gamma: Largest change of the logarithm of the exponent applied between the window's extremes.
        bias_field: Deviation of the logarithm of a smooth random shading, as coils of an MR scanner make it.
        noise: Largest standard deviation of added Gaussian noise.
    """

    patch: tuple[Count, Count, Count]
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.67
    favoured: int | None = None
    favoured_patch: tuple[Count, Count, Count] | None = None
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    shift_intensity: float = 0.0
    scale_intensity: float = 0.0
    gamma: float = 0.0
    bias_field: float = 0.0
    noise: float = 0.0


def draw_sample(
    case: LabelledCase, settings: AugmentSettings, *, context_slices: int, spatial_dims: int, random: torch.Generator
) -> tuple[Tensor, Targets]:
    """Draw one window of a case and augment it.

    Args:
        case: The case.
        settings: What to draw.
        context_slices: 2.5D neighbours on each side.
        spatial_dims: 2 gives ``(C * (2 context + 1), H, W)``, 3 gives ``(C, D, H, W)``.
        random: Every random number comes from here.

    Returns:
        The image, float32, and its objects: boxes tight around the voxels that are at least half theirs.
    """
    label = _centre_class(case, settings, random)
    favoured = label is not None and label == settings.favoured
    patch = (favoured and settings.favoured_patch) or settings.patch
    shape = (patch[0] + 2 * context_slices, *patch[1:])
    start = _window_start(case, shape, label, random, beyond=context_slices)
    image = _cut(case.image, start, shape)
    labels, masks = dense_occupancy(case, start, shape)
    image, masks = _move(image, masks, settings, random)
    image = _recolour(image, settings, random)
    if spatial_dims == 2:
        image = image.flatten(0, 1) if context_slices else image[:, 0]
        masks = masks[:, context_slices]
    return image, _targets(labels, masks, spatial_dims)


def _uniform(random: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def _centre_class(case: LabelledCase, settings: AugmentSettings, random: torch.Generator) -> int | None:
    """Class of the object that the window shall lie around; ``None`` for a window anywhere."""
    if not case.objects or _uniform(random, 0, 1) >= settings.foreground:
        return None
    classes = sorted({item.label for item in case.objects})
    if settings.favoured in classes and _uniform(random, 0, 1) < _FAVOUR:
        return settings.favoured
    return classes[int(torch.randint(len(classes), (), generator=random))]


def _window_start(
    case: LabelledCase, shape: tuple[int, ...], label: int | None, random: torch.Generator, *, beyond: int
) -> tuple[int, ...]:
    """First voxel of a window; it may begin ``beyond`` slices outside, so that the outermost slices are learnt too."""
    size = (case.image.shape[1] + 2 * beyond, *case.image.shape[2:])
    centre = [_uniform(random, min(n, s) / 2, max(s - n / 2, min(n, s) / 2)) for n, s in zip(shape, size, strict=True)]
    if label is not None:
        members = [item for item in case.objects if item.label == label]
        item = members[int(torch.randint(len(members), (), generator=random))]
        inside = torch.nonzero(item.crop >= _INSIDE)
        if len(inside):
            voxel = inside[int(torch.randint(len(inside), (), generator=random))]
            reach = [n / 4 for n in shape]  # the object need not lie in the middle
            shift = (beyond, 0, 0)
            centre = [
                float(o + v + s) + 0.5 + _uniform(random, -r, r)
                for o, v, r, s in zip(item.start, voxel, reach, shift, strict=True)
            ]
    start = []
    for c, n, s in zip(centre, shape, size, strict=True):
        low, high = min(0, (s - n) // 2), max(s - n, (s - n) // 2)
        start.append(min(max(round(c - n / 2), low), high))
    return (start[0] - beyond, *start[1:])


def _cut(image: Tensor, start: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Window of ``(C, D, H, W)`` as float32; what lies outside the image is zero."""
    out = torch.zeros((image.shape[0], *shape))
    low = [max(0, s) for s in start]
    high = [min(s + n, m) for s, n, m in zip(start, shape, image.shape[1:], strict=True)]
    target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    out[(slice(None), *target)] = image[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))].float()
    return out


def _move(image: Tensor, masks: Tensor, settings: AugmentSettings, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom, shift and bend, image and masks alike."""
    if not any((settings.rotate_degrees, settings.zoom, settings.shift, settings.elastic)):
        return image, masks
    depth, height, width = image.shape[1:]
    angle = math.radians(_uniform(random, -settings.rotate_degrees, settings.rotate_degrees))
    zoom = [math.exp(_uniform(random, -settings.zoom, settings.zoom)) for _ in range(3)]  # W, H, D
    shift = [_uniform(random, -settings.shift, settings.shift) * 2 for _ in range(3)]  # grids run from -1 to 1
    if depth == 1:
        zoom[2], shift[2] = 1.0, 0.0
    cos, sin, aspect = math.cos(angle), math.sin(angle), height / width
    rows = [
        [cos * zoom[0], -sin * aspect * zoom[1], 0.0, shift[0]],
        [sin / aspect * zoom[0], cos * zoom[1], 0.0, shift[1]],
        [0.0, 0.0, zoom[2], shift[2]],
    ]
    grid = F.affine_grid(torch.tensor([rows]), [1, 1, depth, height, width], align_corners=False)
    if settings.elastic:
        bend = _smooth_field(3, image.shape[1:], random).movedim(0, -1) * settings.elastic
        grid = grid + (bend if depth > 1 else bend * torch.tensor([1.0, 1.0, 0.0]))
    moved = F.grid_sample(torch.cat([image, masks.float()])[None], grid, padding_mode="border", align_corners=False)[0]
    return moved[: len(image)], moved[len(image) :].round().to(torch.uint8)


def _smooth_field(channels: int, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """``(channels, *shape)`` of smooth noise with deviation about one at its knots."""
    knots = torch.randn((1, channels, *(min(_KNOTS, n) for n in shape)), generator=random)
    return F.interpolate(knots, size=tuple(shape), mode="trilinear", align_corners=True)[0]


def _recolour(image: Tensor, settings: AugmentSettings, random: torch.Generator) -> Tensor:
    if settings.gamma:
        low, span = image.amin(), (image.amax() - image.amin()).clamp(min=1e-3)
        image = ((image - low) / span) ** math.exp(_uniform(random, -settings.gamma, settings.gamma)) * span + low
    if settings.bias_field:
        image = image * torch.exp(settings.bias_field * _smooth_field(1, image.shape[1:], random))
    scale = 1 + _uniform(random, -settings.scale_intensity, settings.scale_intensity)
    image = image * scale + _uniform(random, -settings.shift_intensity, settings.shift_intensity)
    if settings.noise:
        level = _uniform(random, 0, settings.noise)
        image = image + level * torch.randn(image.shape, generator=random)
    return image


def _targets(labels: Tensor, masks: Tensor, spatial_dims: int) -> Targets:
    boxes, kept = [], []
    for i, mask in enumerate(masks):
        box = _tight_box(mask >= _INSIDE)
        if box is not None:
            boxes.append(box)
            kept.append(i)
    if not boxes:
        empty = torch.zeros((0, 2 * spatial_dims))
        return Targets(empty, labels[:0], masks[:0])
    return Targets(torch.stack(boxes), labels[kept], masks[kept])


def _tight_box(mask: Tensor) -> Tensor | None:
    low, high = [], []
    if int(mask.sum()) < _LEAST_VOXELS:
        return None
    for axis in range(mask.ndim):
        hits = torch.nonzero(mask.amax(dim=tuple(a for a in range(mask.ndim) if a != axis))).flatten()
        low.append(float(hits[0]))
        high.append(float(hits[-1]) + 1)
    return torch.tensor(low + high)

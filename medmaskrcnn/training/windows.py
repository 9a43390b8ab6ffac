"""Choose the window of a case that becomes a sample, and cut its image and objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.data.cases import LabelledCase, TrainingObject
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.training.plan import AugmentSettings

INSIDE = 128
"""Occupancy (0 to 255) from which a voxel belongs to an object."""

_OVERSAMPLED_SHARE = 0.5  # share of the windows around objects that the oversampled class gets
_OFF_CENTRE = 0.25  # of the window's size: how far the chosen voxel may lie from the window's centre


def choose_window(
    case: LabelledCase,
    settings: AugmentSettings,
    class_names: Sequence[str],
    random: np.random.Generator,
    *,
    context_slices: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw a window, near an object or anywhere.

    Args:
        case: The case.
        settings: How windows are drawn.
        class_names: The model's classes.
        random: Every random number comes from here.
        context_slices: 2.5D neighbours on each side, added to the window.

    Returns:
        First voxel D, H, W of the window, which may lie outside the image, and its shape.
    """
    label = _centre_class(case, settings, class_names, random)
    is_oversampled = label is not None and class_names[label] == settings.oversampled_class
    patch = (is_oversampled and settings.oversampled_patch) or settings.patch
    shape = (patch[0] + 2 * context_slices, *patch[1:])
    return _start(case, shape, label, random, beyond=context_slices), shape


def cut(image: Tensor, start: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Window of ``(C, D, H, W)``, of the same dtype; zero outside the image."""
    out = torch.zeros((image.shape[0], *shape), dtype=image.dtype)
    low = [max(0, s) for s in start]
    high = [min(s + n, m) for s, n, m in zip(start, shape, image.shape[1:], strict=True)]
    target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    out[(slice(None), *target)] = image[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    return out


def objects_within(case: LabelledCase, start: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, list[Mask]]:
    """Objects that reach into a window of the case.

    Args:
        case: The case.
        start: First voxel D, H, W of the window; may lie outside the image.
        shape: Shape of the window.

    Returns:
        Labels ``(N,)`` int64, and the part of each object inside the window, in voxels of the window.
    """
    parts = [(item.label, part_within(item.mask, start, shape)) for item in case.objects]
    inside = [(label, part) for label, part in parts if part.array.size]
    return torch.tensor([label for label, _ in inside], dtype=torch.int64), [part for _, part in inside]


def part_within(mask: Mask, start: Sequence[int], shape: Sequence[int]) -> Mask:
    """The part of a mask inside a window, in voxels of the window."""
    end = [a + n for a, n in zip(start, shape, strict=True)]
    return mask.cropped(start, end).shifted([-a for a in start])


def _centre_class(
    case: LabelledCase, settings: AugmentSettings, class_names: Sequence[str], random: np.random.Generator
) -> int | None:
    """Class of the object to place the window around; ``None`` for a window anywhere."""
    if not case.objects or random.random() >= settings.foreground_prob:
        return None
    classes = sorted({item.label for item in case.objects})
    oversampled_class = class_names.index(settings.oversampled_class) if settings.oversampled_class else None
    if oversampled_class in classes and random.random() < _OVERSAMPLED_SHARE:
        return oversampled_class
    return classes[random.integers(len(classes))]


def _start(
    case: LabelledCase, shape: tuple[int, ...], label: int | None, random: np.random.Generator, *, beyond: int
) -> tuple[int, ...]:
    """First voxel of a window; it may start ``beyond`` slices outside, so that the outermost slices are sampled too."""
    size = (case.image.shape[1] + 2 * beyond, *case.image.shape[2:])
    centre = [random.uniform(min(n, s) / 2, max(s - n / 2, min(n, s) / 2)) for n, s in zip(shape, size, strict=True)]
    if label is not None:
        members = [item for item in case.objects if item.label == label]
        voxel = _voxel(members[random.integers(len(members))], random)
        reach = [n * _OFF_CENTRE for n in shape]
        offset = (beyond, 0, 0)
        centre = [v + o + 0.5 + random.uniform(-r, r) for v, o, r in zip(voxel, offset, reach, strict=True)]
    start = []
    for c, n, s in zip(centre, shape, size, strict=True):
        low, high = min(0, (s - n) // 2), max(s - n, (s - n) // 2)
        start.append(min(max(round(c - n / 2), low), high))
    return (start[0] - beyond, *start[1:])


def _voxel(item: TrainingObject, random: np.random.Generator) -> list[int]:
    """A random voxel of the object; the middle of its crop if none is at least half filled."""
    soft = item.mask.array
    inside = np.argwhere(soft >= INSIDE)
    within = inside[random.integers(len(inside))].tolist() if len(inside) else [n // 2 for n in soft.shape]
    return [a + b for a, b in zip(item.mask.start, within, strict=True)]

"""Make one weight of a source fit a network: other input channels, other classes, 2D kernels in 3D.

Letters: ``S`` spatial dims of the network, ``K`` its classes, ``A`` anchors per cell.

A kernel is inflated along D in one of two ways, both used by Girdhar et al. 2018 ("Detect-and-Track", section 3.1) to
turn a 2D Mask R-CNN into a 3D one. ``"mean"`` repeats it and divides by the number of repeats (I3D, Carreira and
Zisserman 2017, section 2.4). ``"centre"`` puts it on the middle slice, with zeros elsewhere. On a volume of identical
slices ``"centre"`` gives the 2D network's maps everywhere, ``"mean"`` only beyond the reach of the padding along D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medmaskrcnn.settings import ModelSettings
from medmaskrcnn.structures.class_names import match_class_names
from medmaskrcnn.training.transfer.source import STEMS, Source

Inflation = Literal["centre", "mean"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A weight in the network's shape and how it was made to fit; or ``None`` and the reason."""

    value: Tensor | None
    how: str


def fit(name: str, target: Tensor, source: Source, settings: ModelSettings, inflation: Inflation) -> Fit:
    """Make the source's weight of this name fit.

    Args:
        name: Our name of the weight.
        target: The network's current weight, ``(out, in, ...)``; rows that the source lacks keep these values.
        source: The source of the weights.
        settings: Settings of the network.
        inflation: How to inflate along D if the source is 2D and the network 3D.
    """
    if name not in source.weights:
        return Fit(None, "the source has none")
    if source.spatial_dims > settings.spatial_dims:
        return Fit(None, "the source is 3D, the network 2D")
    value, steps = source.weights[name].to(target.dtype), []
    if name in STEMS and value.shape[1] != target.shape[1]:
        value = spread_channels(value, target.shape[1])
        steps.append(f"sum of {source.weights[name].shape[1]} input channels over {target.shape[1]}")
    if source.spatial_dims < settings.spatial_dims:
        value, step = _to_3d(name, value, target, settings, inflation)
        steps += [step] if step else []
    if name in STEMS and value.shape[2:] != target.shape[2:]:
        steps.append("within a larger kernel")
        value = widen(value, target.shape[2:])
    rows = _rows(name, source, settings)
    if rows is not None:
        return rows.fit(value, target, steps)
    if value.shape != target.shape:
        return Fit(None, f"shape {tuple(target.shape)} here, {tuple(value.shape)} in the source")
    return Fit(value, ", ".join(steps) or "as it is")


def spread_channels(kernel: Tensor, channels: int) -> Tensor:
    """A first layer's kernel ``(out, in, ...)`` for another number of input channels.

    Each channel gets the sum over the old ones divided by the new number: an image repeated in all channels gives the
    same output as before. A single channel gets the sum; neighbouring slices (2.5D) share it.
    """
    return (kernel.sum(dim=1, keepdim=True) / channels).repeat(1, channels, *(1,) * (kernel.ndim - 2))


def widen(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """A kernel ``(out, in, *k)`` zero-padded to ``(out, in, *size)``, with the same output.

    Returned unchanged if it is larger or cannot be centred.
    """
    beyond = [n - k for n, k in zip(size, kernel.shape[2:], strict=True)]
    if any(n < 0 or n % 2 for n in beyond):
        return kernel
    return torch.nn.functional.pad(kernel, [n // 2 for n in reversed(beyond) for _ in range(2)])


def inflate(kernel: Tensor, depth: int, how: Inflation) -> Tensor:
    """Inflate a kernel from ``(out, in, h, w)`` to ``(out, in, depth, h, w)``."""
    if how == "mean":
        return kernel[:, :, None].expand(-1, -1, depth, -1, -1) / depth
    inflated = kernel.new_zeros((*kernel.shape[:2], depth, *kernel.shape[2:]))
    inflated[:, :, depth // 2] = kernel
    return inflated


def _to_3d(
    name: str, value: Tensor, target: Tensor, settings: ModelSettings, how: Inflation
) -> tuple[Tensor, str | None]:
    """A 2D network's weight in 3D, if it has an axis D there, and how it was made."""
    if name == "box_head.fc1.weight":  # fully connected: a kernel as large as the region
        bins = settings.roi.box_size
        channels = target.shape[1] // bins**3
        if value.shape[1] == channels * bins**2:
            kernel = value.view(len(value), channels, bins, bins)
            return inflate(kernel, bins, how).flatten(1), f"inflated ({how})"
    if value.ndim == 4 and target.ndim == 5:
        if name.startswith("mask_head.upsample."):  # its slices do not overlap: each is the 2D kernel
            return value[:, :, None].expand(-1, -1, target.shape[2], -1, -1).contiguous(), "repeated along D"
        return inflate(value, target.shape[2], how), f"inflated ({how})" if target.shape[2] > 1 else None
    return value, None


@dataclass(frozen=True)
class _Rows:
    """Rows of an output layer in groups of ``width``, one group per class or anchor.

    Attributes:
        pairs: ``(group here, group in the source)``.
        groups: Number of groups here and in the source.
        width: Rows per group here and in the source; box deltas have ``2 S``.
        names: Description of the pairs, for the report.
    """

    pairs: Sequence[tuple[int, int]]
    groups: tuple[int, int]
    width: tuple[int, int]
    names: str

    def fit(self, value: Tensor, target: Tensor, steps: list[str]) -> Fit:
        if not self.pairs:
            return Fit(None, "no class in common")
        ours = target.clone().unflatten(0, (self.groups[0], self.width[0]))
        if len(value) != math.prod((self.groups[1], self.width[1])) or value.shape[1:] != target.shape[1:]:
            return Fit(None, f"shape {tuple(target.shape)} here, {tuple(value.shape)} in the source")
        theirs = value.unflatten(0, (self.groups[1], self.width[1]))
        here, there = (torch.tensor(column) for column in zip(*self.pairs, strict=True))
        for i, j in zip(*_same_deltas(*self.width), strict=True):
            ours[here, i] = theirs[there, j]
        distinct = len({group for _, group in self.pairs})
        whole = len(self.pairs) == distinct == self.groups[0] and self.width[0] == self.width[1]
        return Fit(ours.flatten(0, 1), ", ".join([*steps, *([] if whole else [self.names])]) or "as it is")


def _same_deltas(ours: int, theirs: int) -> tuple[Sequence[int], Sequence[int]]:
    """Rows of a group with the same meaning: all, or of 3D deltas (z, y, x, d, h, w) those that 2D has too."""
    return ((1, 2, 4, 5), range(4)) if (ours, theirs) == (6, 4) else (range(ours), range(theirs))


def _rows(name: str, source: Source, settings: ModelSettings) -> _Rows | None:
    """How the rows of an output layer are paired by their meaning; ``None`` for any other weight."""
    layer = name.rpartition(".")[0]
    deltas = (2 * settings.spatial_dims, 2 * source.spatial_dims)
    if layer == "rpn_head.deltas":
        groups = settings.anchors_per_cell
        if len(source.weights[name]) != groups * deltas[1]:
            return None
        return _Rows([(i, i) for i in range(groups)], (groups, groups), deltas, "deltas within the plane")
    if layer == "rpn_head.objectness":
        return _objectness_rows(len(source.weights[name]), source, settings)
    background = 0 if layer == "mask_head.logits" else 1
    if layer not in ("box_head.classes", "box_head.deltas", "mask_head.logits"):
        return None
    here, there = settings.class_names, source.class_names
    match = match_class_names(there, here, aliases=source.aliases)
    of_name = {name: theirs for theirs, name in match.first.items()}
    common = [n if of_name[n] == n else f"{n} (there {of_name[n]})" for n in match.names]
    pairs = [(here.index(n) + background, there.index(of_name[n]) + background) for n in match.names]
    if pairs and background:
        pairs = [(0, 0), *pairs]
    groups2 = (len(here) + background, len(there) + background)
    names = f"rows of {', '.join(common)}"
    if layer == "box_head.deltas" and deltas[0] != deltas[1]:
        names += " (deltas within the plane)"
    return _Rows(pairs, groups2, deltas if layer == "box_head.deltas" else (1, 1), names)


def _objectness_rows(rows: int, source: Source, settings: ModelSettings) -> _Rows | None:
    """Rows of the objectness, which has one logit per class here: one that all classes shared becomes that of each."""
    anchors, classes = settings.anchors_per_cell, settings.class_names
    if settings.rpn.objectness == "shared":
        return None
    if rows == anchors:
        pairs = [(row, row // len(classes)) for row in range(anchors * len(classes))]
        return _Rows(pairs, (len(pairs), anchors), (1, 1), "one logit for all classes")
    there = source.class_names
    common = [name for name in classes if name in there]
    pairs = [
        (anchor * len(classes) + classes.index(name), anchor * len(there) + there.index(name))
        for anchor in range(anchors)
        for name in common
    ]
    return _Rows(pairs, (anchors * len(classes), anchors * len(there)), (1, 1), f"rows of {', '.join(common)}")

"""The training window, the number of windows per update, and the tile size of inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn.training.planner.dataset_fingerprint import Array, DatasetFingerprint
from medmaskrcnn.training.planner.grid import GridPlan
from medmaskrcnn.training.planner.memory import GIB, count_parameters, step_memory

Patch = tuple[int, int, int]

# Voxels of a window and an update are those of a network with FPN's first stride of 4; with a finer one as many fewer
# as it has more cells (GridPlan.fineness), so that an update takes about as long.
_WHOLE = 1_000_000  # voxels up to which a whole scan is the window
_MOST = 2_000_000  # maximum voxels of a window: larger ones mean fewer updates per hour
_AROUND = 1.25  # window side relative to the largest class's median object
_PLANE = (256, 512)  # minimum and maximum side of a window in 2D, pixels
_OBJECTS_ACROSS = 6  # objects of the largest class along a window's side, in 2D
_UPDATE = {2: 262_144, 3: 400_000}  # voxels per update: smaller windows are batched
_MOST_WINDOWS = 16
_STEP_D, _STEP_HW = 8, 16  # windows are multiples of these
_LEAST = 32  # minimum side of a window along H and W, voxels
_SHRINK = 0.85
_GARBLED_DEPTH = 2  # slices of a feature map for which bf16 gradients on the CPU are wrong (docs/decisions/010)


@dataclass(frozen=True)
class PatchPlan:
    """Window size of training and tile size of inference; D, H, W in voxels of the network.

    Attributes:
        model: Settings of the chosen network.
        patch: Training window.
        batch: Windows per update.
        tile: Largest tile of inference.
        whole: Whether the window holds a scan of median size.
    """

    model: ModelSettings
    patch: Patch
    batch: int
    tile: Patch
    whole: bool


def plan_patch(
    fingerprint: DatasetFingerprint,
    grid: GridPlan,
    networks: Sequence[ModelSettings],
    memory: float,
    reasons: dict[str, str],
) -> PatchPlan:
    """Choose the widest network, then the largest useful window, whose training step fits into ``memory`` bytes.

    Raises:
        MedMaskRCNNError: if not even the smallest window of the narrowest network fits.
    """
    scans = grid.scans(fingerprint)
    wanted, why = _wanted(fingerprint, grid, scans)
    model, patch = _fitting(fingerprint, networks, wanted, memory)
    parameters = count_parameters(model)

    def bytes_for(batch: int) -> float:
        return step_memory(model, patch, batch=batch, objects=fingerprint.objects_p90, parameters=parameters)

    batch = int(np.clip(_UPDATE[grid.dims] // (grid.fineness * math.prod(patch)), 1, _MOST_WINDOWS))
    while batch > 1 and bytes_for(batch) > memory:
        batch -= 1
    less = "" if patch == wanted else f" Made smaller for the memory: {_text(wanted)} was wanted."
    reasons["augment.patch"] = f"{why}{less}"
    reasons["train.batch"] = (
        f"{math.prod(patch) * batch:,} voxels an update. A step takes about {bytes_for(batch) / GIB:.2g} GB "
        f"(estimated) of the {memory / GIB:.2g} GB planned for."
    )
    reasons["train.accumulate_grad_batches"] = "Every pass is an update."
    whole = bool((np.median(scans, axis=0)[3 - grid.dims :] <= np.array(patch[3 - grid.dims :])).all())
    return PatchPlan(model, patch, batch, _tile(grid, scans, patch, reasons), whole)


def _wanted(fingerprint: DatasetFingerprint, grid: GridPlan, scans: Array) -> tuple[Patch, str]:
    """The window to use if memory allows, and the reason."""
    median = np.median(scans, axis=0)
    name, _ = fingerprint.largest
    around = _AROUND * grid_size(grid, fingerprint, name)
    if grid.dims == 2:
        low, high = (side / grid.fineness ** (1 / grid.dims) for side in _PLANE)
        side = float(np.clip(_OBJECTS_ACROSS * max(around[1:]), low, high))
        patch = (1, _up(min(median[1], side), _STEP_HW), _up(min(median[2], side), _STEP_HW))
        return patch, f"Slices of {_text(median[1:])} (median); a median {name} spans {_text(around[1:] / _AROUND)}."
    whole, most = _WHOLE / grid.fineness, _MOST / grid.fineness
    if math.prod(_rounded(grid, median)) <= whole:
        return _rounded(grid, median), f"The whole of a median scan ({_text(median)} voxels)."
    side = whole ** (1 / 3)
    least = np.maximum(around, side * (grid.spacing.prod() ** (1 / 3)) / grid.spacing)
    window = np.minimum(median, least)
    while math.prod(_rounded(grid, window)) > most:
        window = window * _SHRINK
    return _rounded(grid, window), (
        f"A scan is large ({_text(median)} voxels, median): windows of up to {most:,.0f} voxels that hold the largest "
        f"class where they can (a median {name} spans {_text(around / _AROUND)})."
    )


def grid_size(grid: GridPlan, fingerprint: DatasetFingerprint, class_name: str) -> Array:
    """``(3,)`` median extent of a class's objects in voxels of the network."""
    names, sizes = grid.objects(fingerprint)
    return np.median(sizes[[name == class_name for name in names]], axis=0)


def _fitting(
    fingerprint: DatasetFingerprint, networks: Sequence[ModelSettings], wanted: Patch, memory: float
) -> tuple[ModelSettings, Patch]:
    """Network and window that fit; a narrower network only if the wider one cannot take an eighth of the window."""
    for model in networks:
        parameters, patch = count_parameters(model), wanted
        smallest = math.prod(wanted) / 8 if model != networks[-1] else 0
        while True:
            if step_memory(model, patch, batch=1, objects=fingerprint.objects_p90, parameters=parameters) <= memory:
                return model, patch
            smaller = _smaller(model, patch)
            if smaller == patch or math.prod(smaller) < smallest:
                break
            patch = smaller
    needed = step_memory(networks[-1], patch, batch=1, objects=fingerprint.objects_p90, parameters=parameters) / GIB
    raise MedMaskRCNNError(
        f"{memory / GIB:.2g} GB of memory are too little: a step of the smallest network on a window of "
        f"{_text(patch)} takes about {needed:.2g} GB"
    )


def _smaller(model: ModelSettings, patch: Patch) -> Patch:
    d, h, w = patch
    h, w = (max(_LEAST, _down(n * _SHRINK, _STEP_HW)) for n in (h, w))
    if model.spatial_dims == 2:
        return 1, h, w
    shallower = [n for n in range(_STEP_D, d, _STEP_D) if n >= _SHRINK * d - _STEP_D and sound_depth(n, _depths(model))]
    return (shallower[0] if shallower else d), h, w


def rounded_patch(size: Sequence[float], strides: Sequence[Sequence[int]]) -> Patch:
    """The smallest window of a 3D network that holds ``size`` (D, H, W) and gives no feature map of two slices."""
    depth = _up(size[0], _STEP_D)
    while not sound_depth(depth, [stride[0] for stride in strides]):
        depth += _STEP_D
    return depth, max(_LEAST, _up(size[1], _STEP_HW)), max(_LEAST, _up(size[2], _STEP_HW))


def sound_depth(depth: int, strides: Sequence[int]) -> bool:
    """Whether a window of this depth gives no feature map of two slices on P2..P5."""
    return all(-(-depth // stride) != _GARBLED_DEPTH for stride in strides)


def _rounded(grid: GridPlan, size: Sequence[float] | Array) -> Patch:
    return rounded_patch([float(n) for n in size], grid.strides)


def _depths(model: ModelSettings) -> list[int]:
    return [stride[0] for stride in model.backbone.strides]


def _tile(grid: GridPlan, scans: Array, patch: Patch, reasons: dict[str, str]) -> Patch:
    """Tile that holds the largest scan, limited to twice the training window along each axis."""
    if grid.dims == 2:
        reasons["inference.tile"] = "Not used: slices are seen whole."
        return 160, 160, 160
    coarsest = grid.strides[-1]
    tile = [
        _up(min(float(largest), 2.0 * side), stride)
        for largest, side, stride in zip(scans.max(axis=0), patch, coarsest, strict=True)
    ]
    reasons["inference.tile"] = (
        f"The largest scan ({_text(scans.max(axis=0))}), but at most twice a window of training."
    )
    d, h, w = tile
    return d, h, w


def _up(value: float, step: int) -> int:
    return max(step, math.ceil(value / step - 1e-9) * step)


def _down(value: float, step: int) -> int:
    return max(step, math.floor(value / step) * step)


def _text(size: Sequence[float] | Array) -> str:
    return " x ".join(f"{n:.0f}" for n in size)

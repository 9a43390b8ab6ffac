"""Estimate of the memory of a training step in bytes, mostly activations kept for the backward pass.

    step = program + 20 P + B (3 F + 4 R + 4 V C + N V) + 80 N A

``P`` parameters (weight, gradient, two moments of AdamW and the moving average, 4 bytes each), ``B`` windows per pass,
``F`` values of feature maps (bfloat16, some fp32), ``R`` values of the sampled regions, ``V`` voxels of a window,
``C`` its channels, ``N`` objects in it (one byte per voxel for each mask), ``A`` anchors (ATSS compares every object
with every anchor, one window at a time). The peak of a step on the CPU, without the program's own memory, was measured
for twelve combinations of the shipped models: the formula gave 1.0 to 1.4 times as much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from medmaskrcnn.models.backbone import MEDNEXT, stage_planes, stage_sizes
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelSettings

GIB = 2.0**30

MEMORY_GB = 8.0
"""Memory that is planned for unless another is asked for, in GiB."""

PROGRAM = 1.0 * GIB
"""Memory of the process before any scan is loaded: Python, torch, MONAI."""

_PER_PARAMETER = 20.0
_PER_PAIR = 80.0  # bytes ATSS keeps per pair of object and anchor
_STEM_MAPS = 4  # convolution, normalisation, activation, pooling
_BLOCK_MAPS = 8  # maps of a residual block with its shortcut
_MEDNEXT_MAPS = 12  # of a MedNeXt block, whose channels are four times as many inside
_FPN_MAPS = 6  # lateral, sum, output; the RPN's hidden map and its activation, both in fp32
_BYTES_DENSE, _BYTES_REGIONS = 3.0, 4.0  # per value: a mix of bf16 and the norms' fp32; fp32
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_SHARE_OF_MACHINE = 0.5  # the rest is for prepared scans, workers and other programs
_SHARE_OF_DEVICE = 0.8
_WHERE_UNKNOWN = 8 * GIB  # Windows has no sysconf


def memory_of_machine() -> float:
    """Bytes that a training may use on this machine: 80 % of the GPU's memory if there is one, else half of its own."""
    if torch.cuda.is_available():
        return _SHARE_OF_DEVICE * torch.cuda.get_device_properties(0).total_memory
    if not hasattr(os, "sysconf"):
        return _WHERE_UNKNOWN
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return _SHARE_OF_MACHINE * min(machine, _container_limit())


def _container_limit() -> float:
    """Memory limit of the container or job in bytes; infinite if there is none."""
    try:
        return float(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


@lru_cache(maxsize=64)
def count_parameters(model: ModelSettings) -> int:
    """Number of parameters of a network, without allocating it."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(model).parameters())


def step_memory(model: ModelSettings, patch: Sequence[int], *, batch: int, objects: int, parameters: int) -> float:
    """Bytes of a training step; see the module docstring.

    Args:
        model: Settings of the network.
        patch: Window D, H, W in voxels.
        batch: Windows per pass.
        objects: Objects in a window.
        parameters: Number of parameters of the network (:func:`count_parameters`).
    """
    window = np.array(patch[-model.spatial_dims :], np.float64)
    voxels = float(np.prod(window))
    anchors = sum(_cells(window, stride) for stride in model.backbone.strides) * model.anchors_per_cell
    pairs = _PER_PAIR * anchors if model.rpn.matcher == "atss" else _PER_PAIR / 2 * anchors
    per_sample = (
        _BYTES_DENSE * _features(model, window)
        + _BYTES_REGIONS * _regions(model)
        + 4.0 * voxels * model.input_channels
        + objects * voxels
    )
    return PROGRAM + _PER_PARAMETER * parameters + batch * per_sample + objects * pairs


def _cells(window: np.ndarray, stride: Sequence[int]) -> float:
    return float(np.prod(np.ceil(window / np.array(stride))))


def _features(model: ModelSettings, window: np.ndarray) -> float:
    """Number of values that backbone, FPN and RPN keep for the backward pass."""
    backbone = model.backbone
    stem = _cells(window, [min(2, s) for s in backbone.strides[0]]) * stage_planes(backbone)[0] * _STEM_MAPS
    maps = _MEDNEXT_MAPS if backbone.name == MEDNEXT else _BLOCK_MAPS
    return stem + sum(
        _cells(window, stride) * (blocks * maps * width + _FPN_MAPS * backbone.fpn_channels)
        for stride, (blocks, width) in zip(backbone.strides, stage_sizes(backbone), strict=True)
    )


def _regions(model: ModelSettings) -> float:
    """Number of values that the box and mask heads keep for the backward pass."""
    roi, dims = model.roi, model.spatial_dims
    box = roi.batch_per_image * (2 * model.backbone.fpn_channels * roi.box_size**dims + 4 * roi.box_hidden)
    outlined = min(roi.max_mask_rois, roi.batch_per_image)
    bins = roi.mask_size**dims
    mask = model.backbone.fpn_channels + 2 * roi.mask_convs * roi.mask_channels
    fine = 2**dims * bins * (2 * roi.mask_channels + 4 * len(model.class_names))
    return box + outlined * (bins * mask + fine)

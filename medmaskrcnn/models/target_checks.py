"""Checks of the targets that a training loop hands to the network: each error names target, key and row.

A wrong target often trains without an error and teaches something wrong: labels that begin at 0, boxes in relative
coordinates, masks of another image. What can be seen in the values is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

from medmaskrcnn.settings import ModelSettings
from medmaskrcnn_kernels.plain import plain

_ROUNDING_VOX = 0.5
"""How far a box may reach beyond the image, as boxes do after resizing; that part is cut off."""
_MASK_DTYPES = (torch.bool, torch.uint8)


def check_target(
    name: str, target: Mapping[str, Tensor], shape: tuple[int, ...], settings: ModelSettings
) -> dict[str, Tensor]:
    """Check the target of one image.

    Args:
        name: What it is called in messages, ``"targets[0]"``.
        target: As for :func:`medmaskrcnn.models.conventions.targets_from`.
        shape: Spatial shape of the image (voxels).
        settings: Settings of the network.

    Returns:
        The entries that the network reads, as plain tensors.

    Raises:
        TypeError: if a value is no tensor or of a wrong dtype.
        ValueError: if it does not fit the image or the network.
    """
    if not isinstance(target, Mapping):
        raise TypeError(f"{name} must be a dict with boxes, labels and masks, got {type(target).__name__}")
    needed = ("boxes", "labels", *(("masks",) if settings.with_masks else ()))
    if missing := [key for key in needed if key not in target]:
        raise ValueError(f"{name} has no {' and no '.join(missing)}; it has {', '.join(map(str, target)) or 'nothing'}")
    read = {key: target[key] for key in (*needed, "iscrowd", "annotated") if key in target}
    for key, value in read.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}[{key!r}] must be a tensor, got {type(value).__name__}")
    form = getattr(read["boxes"], "format", None)  # of torchvision's BoundingBoxes
    if form is not None and getattr(form, "value", form) != "XYXY":
        raise ValueError(f"{name}['boxes'] must be in the format XYXY, got {getattr(form, 'value', form)}")
    found = {key: plain(value) for key, value in read.items()}
    _check_boxes(f"{name}['boxes']", found["boxes"], shape)
    count = len(found["boxes"])
    _check_labels(f"{name}['labels']", found["labels"], count, settings.class_names)
    if "masks" in found:
        _check_masks(f"{name}['masks']", found["masks"], (count, *shape))
    if "iscrowd" in found and found["iscrowd"].shape != (count,):
        raise ValueError(f"{name}['iscrowd'] must have shape ({count},), got {tuple(found['iscrowd'].shape)}")
    classes = len(settings.class_names)
    if "annotated" in found and (found["annotated"].shape != (classes,) or found["annotated"].dtype != torch.bool):
        got = f"{tuple(found['annotated'].shape)} {found['annotated'].dtype}"
        raise ValueError(f"{name}['annotated'] must be ({classes},) bool, one entry for each class, got {got}")
    return found


def _check_boxes(name: str, boxes: Tensor, shape: tuple[int, ...]) -> None:
    dims = len(shape)
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must hold floating point numbers, got {boxes.dtype}")
    if boxes.ndim != 2 or boxes.shape[1] != 2 * dims:
        hint = f"; an image without objects has (0, {2 * dims})" if not boxes.numel() else ""
        raise ValueError(f"{name} must have shape (N, {2 * dims}), got {tuple(boxes.shape)}{hint}")
    axes = "xyz"[:dims]
    order = ", ".join([f"{a}0" for a in axes] + [f"{a}1" for a in axes])
    limit = torch.tensor(shape[::-1], device=boxes.device)
    low, high = boxes[:, :dims], boxes[:, dims:]
    beyond = (low < -_ROUNDING_VOX) | (high > limit + _ROUNDING_VOX)
    empty = ~(high.minimum(limit) > low.clamp(min=0))  # so that NaN is among them
    if not bool((beyond | empty).any()):
        return
    row = int((beyond | empty).any(1).nonzero()[0])
    values = boxes[row].tolist()
    got = f"[{', '.join(f'{v:g}' for v in values)}] ({order})"
    if not all(map(isfinite, values)):
        raise ValueError(f"{name}[{row}] is not finite: {got}")
    for axis, letter in enumerate(axes):
        if values[dims + axis] <= values[axis]:
            raise ValueError(
                f"{name}[{row}] has no extent along {letter}: {got}. Minima come first, then maxima, and a box of one "
                "voxel ends one after it begins"
            )
    size = " x ".join(f"{letter} {n}" for letter, n in zip(axes, reversed(shape), strict=True))
    raise ValueError(f"{name}[{row}] lies outside of the image ({size} voxels): {got}")


def _check_labels(name: str, labels: Tensor, count: int, class_names: tuple[str, ...]) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), one for each box, got {tuple(labels.shape)}")
    bad = (labels < 1) | (labels > len(class_names))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        known = ", ".join(f"{i} {one}" for i, one in enumerate(class_names, start=1))
        raise ValueError(f"{name}[{row}] is {int(labels[row])}, but the labels of this network are: {known}; 0 is none")


def _check_masks(name: str, masks: Tensor, shape: tuple[int, ...]) -> None:
    if masks.dtype not in _MASK_DTYPES and not masks.is_floating_point():
        raise TypeError(f"{name} must be bool, uint8 (0 and 1) or floating point (0..1), got {masks.dtype}")
    if tuple(masks.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape}, a mask as large as the image for each box, got {tuple(masks.shape)}"
        )
    if masks.dtype == torch.bool or not masks.numel():
        return
    whole = masks.flatten(1)
    bad = ~((whole >= 0) & (whole <= 1)).all(1)  # so that NaN is among them
    if masks.dtype == torch.uint8 and bool(bad.any()):
        bad &= ((whole != 0) & (whole != 255)).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        low, high = whole[row].aminmax()
        raise ValueError(f"{name}[{row}] must lie in 0..1, got {low.item():g} to {high.item():g}")

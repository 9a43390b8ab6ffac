"""torchvision's conventions of a detection network, from and to our own: the only place where the two meet.

======================= ============================================= ==============================================
what                    torchvision, and ``MaskRCNN.forward``         inside this package
======================= ============================================= ==============================================
axes of a box           columns first: x, y or x, y, z                the array's order: rows, columns (y, x) or
                                                                      slices, rows, columns (z, y, x)
box                     ``(N, 2S)``: all minima, then all maxima, in voxels; the same in both but for the axes
labels                  1 is the first class, 0 the background        0 is the first class
masks of targets        ``(N, *spatial)`` bool, or uint8 0 and 1      the same, or occupancy 0..1
masks that are found    ``(N, 1, *spatial)`` probabilities            ``(N, *(M,) * S)`` in the box's coordinates
losses                  ``loss_classifier``, ...                      ``classification``, ...
crowds                  ``iscrowd`` of objects                        ``ignored_boxes`` and ``ignored_mask``
======================= ============================================= ==============================================

The array's axes are never turned: x runs along the last axis of an image, y along the one before it, z along the third
from the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medmaskrcnn.models.box_coder import clip_boxes
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.models.target_checks import check_target
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn_kernels import mask_windows, paste_masks
from medmaskrcnn_kernels.plain import plain

LOSS_NAMES = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "classification": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}
"""torchvision's names of the loss terms; terms that it has not are called ``loss_`` and our name."""


def swap_xy(boxes: Tensor) -> Tensor:
    """Boxes ``(N, 2S)`` (voxels) in x-y(-z) order to the array's order of axes, or back."""
    return boxes.unflatten(1, (2, -1)).flip(2).flatten(1)


def targets_from(
    targets: Sequence[Mapping[str, Tensor]], shapes: Sequence[tuple[int, ...]], settings: ModelSettings, like: Tensor
) -> list[Targets]:
    """torchvision's targets, checked, as the losses take them.

    Args:
        targets: For each image a dict with ``boxes`` ``(N, 2S)`` in x-y(-z) order, ``labels`` ``(N,)`` int64 from 1 on
            and, for a network with a mask head, ``masks`` ``(N, *spatial)``. Two may be added: ``iscrowd`` ``(N,)``
            marks objects that are to be neither found nor counted as false (COCO's crowds), and ``annotated``
            ``(K,)`` bool says which classes were annotated in the image. Other keys are not read.
        shapes: Spatial shape of each image.
        settings: Settings of the network.
        like: A tensor on the device of the images.

    Raises:
        TypeError: if a value is no tensor or of a wrong dtype.
        ValueError: if the targets do not fit the images or the network; the message names target, key and row.
    """
    if isinstance(targets, Mapping) or not isinstance(targets, Sequence):
        raise TypeError(f"targets must be a list with a dict for each image, got {type(targets).__name__}")
    if len(targets) != len(shapes):
        raise ValueError(f"targets must have one dict for each of the {len(shapes)} images, got {len(targets)}")
    return [
        _target(f"targets[{i}]", own, shape, settings, like)
        for i, (own, shape) in enumerate(zip(targets, shapes, strict=True))
    ]


def _target(
    name: str, target: Mapping[str, Tensor], shape: tuple[int, ...], settings: ModelSettings, like: Tensor
) -> Targets:
    own = check_target(name, target, shape, settings)
    own = {key: plain(value).to(like.device) for key, value in own.items()}
    boxes = clip_boxes(swap_xy(own["boxes"]).float(), shape)
    labels, masks, annotated = own["labels"] - 1, own.get("masks"), own.get("annotated")
    if masks is not None and not masks.is_floating_point():
        masks = masks != 0
    crowd = own["iscrowd"] != 0 if "iscrowd" in own else None
    if crowd is None or not bool(crowd.any()):
        return Targets(boxes, labels, masks, annotated)
    return Targets(
        boxes[~crowd],
        labels[~crowd],
        None if masks is None else masks[~crowd],
        annotated,
        boxes[crowd],
        None if masks is None else masks[crowd].amax(dim=0),
    )


def detections_as_dicts(found: Sequence[Detections], shapes: Sequence[tuple[int, ...]]) -> list[dict[str, Tensor]]:
    """Detections as torchvision gives them.

    Args:
        found: Detections of each image.
        shapes: Spatial shape of each image without its padding.

    Returns:
        For each image ``boxes`` ``(N, 2S)`` in x-y(-z) order, voxels; ``labels`` ``(N,)`` int64 from 1 on; ``scores``
        ``(N,)``; and, with a mask head, ``masks`` ``(N, 1, *spatial)`` float32 probabilities, 0 outside of the box.
    """
    return [_as_dict(own, shape) for own, shape in zip(found, shapes, strict=True)]


def _as_dict(found: Detections, shape: tuple[int, ...]) -> dict[str, Tensor]:
    made = {"boxes": swap_xy(found.boxes), "labels": found.labels + 1, "scores": found.scores}
    if found.mask_probabilities is not None:
        made["masks"] = found.boxes.new_zeros((len(found.boxes), 1, *shape))
        for mask, (where, crop) in zip(made["masks"], _crops(found, shape), strict=True):
            mask[0][where] = crop
    return made


def class_maps(found: Sequence[Detections], shapes: Sequence[tuple[int, ...]], classes: int) -> Tensor:
    """Probability ``(B, K, *spatial)`` that a voxel belongs to an object of each class: the best score times mask."""
    return torch.stack([_class_maps(one, shape, classes) for one, shape in zip(found, shapes, strict=True)])


def _class_maps(found: Detections, shape: tuple[int, ...], classes: int) -> Tensor:
    maps = found.boxes.new_zeros((classes, *shape))
    for label, score, (where, crop) in zip(found.labels, found.scores, _crops(found, shape), strict=True):
        own = maps[int(label)][where]
        torch.maximum(own, crop * score, out=own)
    return maps


def _crops(found: Detections, shape: tuple[int, ...]) -> list[tuple[tuple[slice, ...], Tensor]]:
    """Place and mask probabilities of each object in an image of ``shape``; without masks its box is full."""
    dims, regions = len(shape), found.boxes if found.mask_boxes is None else found.mask_boxes
    windows = mask_windows(regions, shape)
    if found.mask_probabilities is None:
        whole = found.boxes.new_ones((len(found.boxes), *(1,) * dims))
    else:
        whole = found.mask_probabilities
    places = [tuple(map(slice, window[:dims], window[dims:])) for window in windows.tolist()]
    return list(zip(places, paste_masks(whole, regions, windows), strict=True))

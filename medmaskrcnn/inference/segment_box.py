"""Segments the object in a box drawn by the user: only the mask head runs, there is no detection.

    read -> check suitability -> prepare -> the box in network voxels -> outline -> turn back

The steps are those of :mod:`medmaskrcnn.inference.pipeline` with a given box in place of detection. A 3D model
outlines the object at once, a 2D or 2.5D model slice by slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.detection import Detection, paste_detections, to_instances
from medmaskrcnn.inference.prepare import Preprocessed, prepare
from medmaskrcnn.inference.region import REGION_MARGIN
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

Box = NDArray[np.float64]


def segment_box(
    volume: Volume,
    model: LoadedModel,
    box_vox: Sequence[float],
    class_name: str,
    options: SegmentOptions = AS_THE_MODEL_SAYS,
) -> Instances:
    """Outline the object in a given box.

    Args:
        volume: The scan.
        model: A model with a mask head.
        box_vox: Minima D, H, W, then maxima, voxel coordinates of the scan; the box is clipped to the scan.
        class_name: Class of the object, one of the model's.
        options: As for :func:`medmaskrcnn.segment`; only ``allow_out_of_domain`` is used here.

    Returns:
        One object of score 1 on the scan's grid. Its mask is empty if the network finds no foreground in the box.

    Raises:
        UnsuitableScanError: if the model cannot be run on the scan.
        ValueError: if the class is unknown, the box lies outside of the scan, or the model has no mask head.
    """
    settings = model.settings
    names = settings.model.class_names
    if class_name not in names:
        raise ValueError(f"the model has no class {class_name!r}; its classes are: {', '.join(names)}")
    if not settings.model.with_masks:
        raise ValueError(f"model {settings.card.name} finds boxes only; outlining needs a model with masks")
    box = np.clip(np.asarray(box_vox, np.float64), 0, np.tile(volume.grid.shape, 2))
    if box.shape != (6,) or not (box[3:] > box[:3]).all():
        raise ValueError(f"the box must hold a part of the scan of shape {volume.grid.shape}, got {list(box_vox)}")
    check_suitable(volume, settings, options)
    prepared = prepare(volume, settings.preprocess)
    outline = _in_volume if settings.model.spatial_dims == 3 else _in_slices
    return to_instances(
        [outline(model, prepared, prepared.box_in_turned(box), names.index(class_name))],
        grid=volume.grid,
        class_names=names,
        turned_shape=prepared.turned_shape,
        axes=prepared.axes,
    )


def _in_volume(model: LoadedModel, prepared: Preprocessed, box: Box, label: int) -> Detection:
    """A 3D model's mask for a box in the turned scan's voxels, computed in a window around it."""
    low, high = prepared.window(box, margin=REGION_MARGIN)
    image = prepared.tensor[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    own = box / np.tile(prepared.scale, 2) - np.tile(low, 2)
    return _outlined(model, image[None], own, label, low, prepared.scale, prepared.turned_shape)


def _in_slices(model: LoadedModel, prepared: Preprocessed, box: Box, label: int) -> Detection:
    """A 2D or 2.5D model's mask: the same rectangle on each slice of which the box covers at least half."""
    context = model.settings.model.context_slices
    padded = torch.nn.functional.pad(prepared.tensor, (0, 0, 0, 0, context, context))
    first = min(round(box[0]), prepared.turned_shape[0] - 1)
    last = max(first + 1, round(box[3]))
    flat = box[[1, 2, 4, 5]]
    own = flat / np.tile(prepared.scale[1:], 2)
    masks = []
    for index in range(first, last):
        image = padded[:, index : index + 2 * context + 1].flatten(0, 1)
        found = _outlined(model, image[None], own, label, (0, 0), prepared.scale[1:], prepared.turned_shape[1:])
        masks.append(found.mask.shifted((index, 0, 0)))
    return Detection(label, 1.0, box.astype(np.float32), Mask.empty().union(*masks))


def _outlined(
    model: LoadedModel,
    image: Tensor,
    box: Box,
    label: int,
    low: Sequence[int],
    scale: Sequence[float],
    shape: tuple[int, ...],
) -> Detection:
    """The mask head's output for one box of an image that begins at ``low`` (network voxels), in the turned scan's."""
    labels = torch.tensor([label])
    padded = pad_to_multiple(image, model.settings.preprocess.pad_multiple).to(model.device)
    asked = torch.tensor(box[None], dtype=torch.float32, device=model.device)
    ((regions, probabilities),) = model.network.outline(padded, [asked], [labels.to(model.device)])
    offset, factor = torch.tensor([*low, *low]), torch.tensor([*scale, *scale], dtype=torch.float32)
    (found,) = paste_detections(
        (regions.cpu() + offset) * factor,
        labels,
        torch.ones(1),
        probabilities.cpu(),
        shape=shape,
        threshold=model.settings.model.detection.mask_threshold,
    )
    return found

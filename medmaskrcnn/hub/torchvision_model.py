"""Conversion of torchvision's ``maskrcnn_resnet50_fpn`` weights to one of our 2D models.

Some conventions are converted exactly here: torchvision orders boxes x, y (ours are in array-axis order), predicts a
mask for the background and names its layers differently. Others remain as settings of the model: the positions of
anchors, and RoIAlign without the half-pixel shift.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from medmaskrcnn.errors import ModelFileError, one_line
from medmaskrcnn.hub.torchvision_files import COCO_CLASSES, COCO_V1_HASH, check_hash
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
)

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_KEYS = ("state_dict", "network_weights", "model")
"""Where checkpoints keep it: Lightning and MedicalNet, nnU-Net and nnssl, detectron2."""

_NOT_OURS = "this is not a state dict of maskrcnn_resnet50_fpn"
_OF_V2 = r"^(rpn\.head\.conv\.1\.|roi_heads\.box_head\.0\.)"  # a second RPN convolution, convolutions in the box head

_RENAMES = (
    (r"^backbone\.body\.", "pyramid.backbone.resnet."),
    (r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:0\.)?(weight|bias)$", r"pyramid.fpn.\1_blocks.\2.\3"),
    (r"^rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)$", r"rpn_head.conv.\1"),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "box_head.fc2."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.classes."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.deltas."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.logits."),
)


def torchvision_settings(
    class_names: tuple[str, ...], *, norm_eps: float, score_thresh: float = 0.05
) -> ModelFileSettings:
    """Settings with which our network computes the same as torchvision's ``maskrcnn_resnet50_fpn``.

    Args:
        class_names: Names of its classes without the background.
        norm_eps: Epsilon of its FrozenBatchNorm, which is not in its file: 0.0 for the COCO_V1 weights,
            1e-5 for a network built with ``weights=None``.
        score_thresh: torchvision's ``box_score_thresh``.
    """
    model = ModelSettings(
        image_channels=3,
        class_names=class_names,
        backbone=BackboneSettings(name="resnet50", norm="frozen_batch", norm_eps=norm_eps),
        anchors=AnchorSettings(offset=0.0, rounded=True, stride_from_size=True),
        roi=RoISettings(aligned=False),
        detection=DetectionSettings(score_thresh=score_thresh),
    )
    preprocess = PreprocessSettings(
        orientation="as_stored",
        resize_min_max=(800, 1333),
        antialias=False,
        value_range=(0.0, 255.0),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )
    card = ModelCard(
        name="torchvision-maskrcnn-resnet50-fpn",
        summary="Mask R-CNN with torchvision's weights, for photographs.",
        data="COCO 2017 (80 classes of everyday things), unless the weights were trained on.",
        licence="BSD-3-Clause (torchvision)",
        limits=("Made for photographs, not for medical scans.",),
    )
    return ModelFileSettings(card=card, model=model, preprocess=preprocess)


def convert_torchvision(state: dict[str, Tensor], settings: ModelFileSettings) -> MaskRCNN:
    """Load a state dict of torchvision's ``maskrcnn_resnet50_fpn`` into our network.

    Args:
        state: The state dict; a convolution's weight is ``(out, in, rows, columns)``.
        settings: From :func:`torchvision_settings`, with as many classes as the state dict has.

    Raises:
        ModelFileError: if a weight is missing, unexpected or of another shape.
    """
    if any(re.match(_OF_V2, name) for name in state):
        raise ModelFileError(
            f"{_NOT_OURS}: this is v2, whose RPN and box head are other networks; it may be what a training starts from"
        )
    model = build_model(settings.model)
    try:
        model.load_state_dict(our_names(state))
    except RuntimeError as error:
        raise ModelFileError(f"{_NOT_OURS}: {one_line(error)}") from error
    return model.eval()


def read_torchvision_model(path: str | os.PathLike[str]) -> tuple[MaskRCNN, ModelFileSettings]:
    """Read torchvision's ``maskrcnn_resnet50_fpn`` from a file: the network in evaluation mode, and its settings.

    Raises:
        ModelFileError: if the file's checksum is wrong or it holds another network.
    """
    state = read_state_dict(path)
    settings = _settings_of(state, Path(path))
    return convert_torchvision(state, settings), settings


def read_torchvision_settings(path: str | os.PathLike[str]) -> ModelFileSettings:
    """Read only the settings, with COCO's class names, or numbers if the number of classes differs.

    Raises:
        ModelFileError: as for :func:`read_torchvision_model`.
    """
    return _settings_of(read_state_dict(path), Path(path))


def _settings_of(state: dict[str, Tensor], path: Path) -> ModelFileSettings:
    bias = state.get("roi_heads.box_predictor.cls_score.bias")
    if bias is None or bias.ndim != 1 or len(bias) < 2:
        raise ModelFileError(f"{path} is not a state dict of maskrcnn_resnet50_fpn: it has no classes")
    # torchvision runs its own COCO weights with an epsilon of 0, and networks built without them with 1e-5
    return torchvision_settings(torchvision_classes(len(bias)), norm_eps=0.0 if COCO_V1_HASH in path.name else 1e-5)


def torchvision_classes(outputs: int) -> tuple[str, ...]:
    """Class names of a network with this many outputs, including the background: COCO's, or numbers."""
    return COCO_CLASSES if outputs == len(COCO_CLASSES) + 1 else tuple(f"class {i}" for i in range(1, outputs))


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict (``.pth``), bare or within a checkpoint; only tensors are unpickled.

    Raises:
        ModelFileError: if the checksum in its name is wrong, or the file holds anything else.
    """
    check_hash(Path(path))
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here; all mean the same to the user
        raise ModelFileError(f"cannot read {path} as a state dict of tensors: {one_line(error)}") from error
    if isinstance(state, dict):
        state = next((state[key] for key in _KEYS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelFileError(f"{path} does not hold a state dict of tensors")
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of torchvision's ResNet-FPN detectors to our names and axis order.

    Weights keep their shapes; outputs of box regression, ``(4 K, in)``, are reordered from x, y to rows, columns.
    """
    ours = {our_name(name): value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for kind in ("weight", "bias"):
        for name in (f"rpn_head.deltas.{kind}", f"box_head.deltas.{kind}"):
            if name in ours and len(ours[name]) % 4 == 0:
                ours[name] = swap_xy(ours[name])
        name = f"mask_head.logits.{kind}"
        if name in ours:
            ours[name] = ours[name][1:]  # torchvision predicts a mask for the background too
    return ours


def our_name(name: str) -> str:
    """Our name of a weight of torchvision's detectors; other names as they are."""
    mask_conv = re.match(r"^roi_heads\.mask_head\.(?:mask_fcn(\d)|(\d)\.0)\.(weight|bias)$", name)
    if mask_conv:
        number = int(mask_conv[1]) - 1 if mask_conv[1] else int(mask_conv[2])
        return f"mask_head.convs.{number}.{mask_conv[3]}"
    for pattern, ours in _RENAMES:
        renamed, count = re.subn(pattern, ours, name)
        if count:
            return renamed
    return name


def swap_xy(value: Tensor) -> Tensor:
    """Reorder the output rows ``(dx, dy, dw, dh)`` of each box to ``(dy, dx, dh, dw)``, the order of array axes."""
    return value.reshape(-1, 4, *value.shape[1:])[:, [1, 0, 3, 2]].reshape(value.shape)

"""Sources of pretrained weights: files of torchvision and MedicalNet, and our own models, all mapped to our names.

Files are recognised by the names inside: torchvision's detectors have ``backbone.body.*``, its classifiers and
MedicalNet (Chen et al. 2019, "Med3D") a bare ResNet, the latter with ``module.`` before each name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.model_file import read_members, resolve_model
from medmaskrcnn.hub.torchvision_files import SUFFIXES
from medmaskrcnn.hub.torchvision_model import our_names, read_state_dict, torchvision_classes
from medmaskrcnn.models.mask_rcnn import MaskRCNN

RESNET = "pyramid.backbone.resnet."
STEM = RESNET + "conv1.weight"
_PARTS = {RESNET + "conv1.": "stem", RESNET + "bn1.": "stem", "pyramid.fpn.": "fpn", "rpn_head.": "rpn"}
_PARTS |= {f"{RESNET}layer{i}.": f"stage{i}" for i in range(1, 5)}
_PARTS |= {"box_head.": "box_head", "mask_head.": "mask_head"}


@dataclass(frozen=True, eq=False)
class Source:
    """Weights to take from.

    Attributes:
        name: The name the user gave.
        weights: Weights by our names; a convolution's is ``(out, in, *kernel)``.
        spatial_dims: 2 or 3.
        class_names: Without background; empty if the source has none.
        aliases: Further names by class, from a model's card.
    """

    name: str
    weights: dict[str, Tensor]
    spatial_dims: int
    class_names: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def part_of(name: str) -> str:
    """Part of the network that a weight belongs to: ``stem``, ``stage1``.., ``fpn``, ``rpn``, ``box_head``, ..."""
    return next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), "other")


def read_source(source: str | os.PathLike[str] | MaskRCNN) -> Source:
    """Read the weights of a model, a shipped model's name, a file or ``torchvision:...``.

    Raises:
        ModelFileError: if it does not exist, cannot be read, or holds no ResNet.
    """
    if isinstance(source, MaskRCNN):
        settings = source.settings
        weights = {name: value.detach().clone() for name, value in source.state_dict().items()}
        return Source("the given model", weights, settings.spatial_dims, settings.class_names)
    path = resolve_model(source)
    if path.suffix not in SUFFIXES:
        (model, *_), file = read_members(path)  # of several folds, the first
        class_names, aliases = file.model.class_names, file.card.aliases
        return Source(str(source), model.state_dict(), file.model.spatial_dims, class_names, aliases)
    weights, class_names = _foreign(read_state_dict(path), path)
    return Source(str(source), weights, weights[STEM].ndim - 2, class_names)


def _foreign(state: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if "backbone.body.conv1.weight" in state:
        bias = state.get("roi_heads.box_predictor.cls_score.bias")
        return our_names(state), torchvision_classes(len(bias)) if bias is not None else ()
    if "conv1.weight" in state:
        counters = ".num_batches_tracked"
        return {RESNET + name: value for name, value in state.items() if not name.endswith(counters)}, ()
    raise ModelFileError(
        f"{path} holds no ResNet that weights could be taken from: expected a state dict of torchvision's ResNets or "
        f"detectors, or of MedicalNet, got names such as {', '.join(list(state)[:3]) or 'none'}"
    )

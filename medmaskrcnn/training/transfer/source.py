"""Sources of pretrained weights: files of other projects (``foreign.py``) and our own models, all by our names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from medmaskrcnn.hub.model_file import read_members, resolve_model
from medmaskrcnn.hub.torchvision_files import SUFFIXES
from medmaskrcnn.hub.torchvision_model import read_state_dict
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.training.transfer.foreign import ENCODER, RESNET, convert

STEMS = (RESNET + "conv1.weight", ENCODER + "stem.convs.0.conv.weight")
"""First convolutions, whose input channels are those of the image."""

_PARTS = {RESNET + "conv1.": "stem", RESNET + "bn1.": "stem", "pyramid.fpn.": "fpn", "rpn_head.": "rpn"}
_PARTS |= {f"{RESNET}layer{i}.": f"stage{i}" for i in range(1, 5)}
_PARTS |= {ENCODER + "stem.": "stem", **{f"{ENCODER}stages.{i}.": f"stage{i + 1}" for i in range(6)}}
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
        origins: Name of each weight in a file of another project.
    """

    name: str
    weights: dict[str, Tensor]
    spatial_dims: int
    class_names: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


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
    found = convert(read_state_dict(path), path)
    dims = found.weights[found.stem].ndim - 2
    return Source(str(source), found.weights, dims, found.class_names, origins=found.origins)

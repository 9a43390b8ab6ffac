"""State dicts of other projects by our names: torchvision, detectron2, MedicalNet, nnssl (OpenMind).

========================= ============================================ ===============================================
file                      recognised by                                what is converted
========================= ============================================ ===============================================
torchvision's detectors   ``backbone.body.conv1.weight``               boxes from x, y; masks without the background
... ``_v2``               norms in its pyramid                         norms of pyramid and mask head folded into their
                                                                       convolutions; its RPN and box head are other
                                                                       networks and are not taken
detectron2's FPN models   ``backbone.bottom_up.stem.conv1.weight``     the background moves from the last class to the
                                                                       first; boxes from x, y; the stem from BGR
torchvision, MedicalNet   ``conv1.weight``                             a bare ResNet
nnssl, nnU-Net (ResEnc)   ``*.stem.convs.0.conv.weight``               the encoder; its decoder is not taken
========================= ============================================ ===============================================

A detectron2 network whose first convolutions came from MSRA's Caffe models has its strides in the 1-wide convolutions
of the blocks, ours in the 3-wide ones: its weights are a start, not the same network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.torchvision_model import our_name, our_names, swap_xy, torchvision_classes

RESNET = "pyramid.backbone.resnet."
ENCODER = "pyramid.backbone."
_NORM_EPS = 1e-5  # of the BatchNorm in torchvision's v2, which is not in its file
_V2 = "backbone.fpn.inner_blocks.0.1.weight"
_V2_FOLDED = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d|roi_heads\.mask_head\.\d)\.0\.weight")
_V2_OTHER = ("rpn.", "roi_heads.box_head.", "roi_heads.box_predictor.")
_DETECTRON2 = "backbone.bottom_up.stem.conv1.weight"
_RESENC = re.compile(r"(?P<prefix>.*?)stem\.convs\.0\.conv\.weight")

_DETECTRON2_NAMES = (
    (r"^backbone\.bottom_up\.stem\.conv1\.norm\.", RESNET + "bn1."),
    (r"^backbone\.bottom_up\.stem\.conv1\.", RESNET + "conv1."),
    (r"^backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.", RESNET + r"layer<\1>.\2.downsample.1."),
    (r"^backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.", RESNET + r"layer<\1>.\2.downsample.0."),
    (r"^backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.", RESNET + r"layer<\1>.\2.bn\3."),
    (r"^backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.", RESNET + r"layer<\1>.\2.conv\3."),
    (r"^backbone\.fpn_lateral(\d)\.", r"pyramid.fpn.inner_blocks.[\1]."),
    (r"^backbone\.fpn_output(\d)\.", r"pyramid.fpn.layer_blocks.[\1]."),
    (r"^proposal_generator\.rpn_head\.conv\.", "rpn_head.conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn_head.objectness."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn_head.deltas."),
    (r"^roi_heads\.box_head\.fc(\d)\.", r"box_head.fc\1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.classes."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.deltas."),
    (r"^roi_heads\.mask_head\.deconv\.", "mask_head.upsample."),
    (r"^roi_heads\.mask_head\.predictor\.", "mask_head.logits."),
)


@dataclass(frozen=True, eq=False)
class Converted:
    """Weights by our names.

    Attributes:
        weights: Those of our networks, and under their own names those that have no counterpart.
        origins: The file's name of each weight.
        class_names: Without background; empty if the network has none.
        stem: Name of the first convolution.
    """

    weights: dict[str, Tensor]
    origins: dict[str, str]
    class_names: tuple[str, ...] = ()
    stem: str = RESNET + "conv1.weight"


def convert(state: dict[str, Tensor], path: Path) -> Converted:
    """Convert a state dict; see the module's table.

    Raises:
        ModelFileError: if it is of none of these networks.
    """
    counters = ".num_batches_tracked"
    state = {name: value for name, value in state.items() if not name.endswith(counters)}
    if "backbone.body.conv1.weight" in state:
        return _of_torchvision(state)
    if _DETECTRON2 in state:
        return _of_detectron2(state)
    if "conv1.weight" in state:
        weights = {RESNET + name: value for name, value in state.items()}
        return Converted(weights, {RESNET + name: name for name in state})
    encoders = [found["prefix"] for name in state if (found := _RESENC.fullmatch(name))]
    if encoders:
        return _of_resenc(state, min(encoders, key=len))
    raise ModelFileError(
        f"{path} holds no network that weights could be taken from: expected a state dict of torchvision's ResNets or "
        "detectors, of detectron2's FPN models, of MedicalNet, or of nnssl's ResEnc, got names such as "
        f"{', '.join(list(state)[:3]) or 'none'}"
    )


def _of_torchvision(state: dict[str, Tensor]) -> Converted:
    bias = state.get("roi_heads.box_predictor.cls_score.bias")
    names = torchvision_classes(len(bias)) if bias is not None else ()
    other: dict[str, Tensor] = {}
    if _V2 in state:
        other = {name: value for name, value in state.items() if name.startswith(_V2_OTHER)}
        state = _folded({name: value for name, value in state.items() if name not in other})
    weights = our_names(state) | other
    return Converted(weights, {our_name(name): name for name in state} | {name: name for name in other}, names)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions with their normalisation folded in: ``y = (w * x - mean) * gamma / sqrt(var + eps) + beta``."""
    folded = dict(state)
    for name in state:
        found = _V2_FOLDED.fullmatch(name)
        if found is None:
            continue
        norm = {key: folded.pop(f"{found[1]}.1.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        scale = norm["weight"] * (norm["running_var"] + _NORM_EPS).rsqrt()
        folded[name] = state[name] * scale.view(-1, *(1,) * (state[name].ndim - 1))
        folded[f"{found[1]}.0.bias"] = norm["bias"] - norm["running_mean"] * scale
    return folded


def _of_detectron2(state: dict[str, Tensor]) -> Converted:
    origins = {_detectron2_name(name): name for name in state}
    weights = {ours: state[theirs] for ours, theirs in origins.items()}
    stem = RESNET + "conv1.weight"
    if weights[stem].shape[1] == 3:
        weights[stem] = weights[stem].flip(1)  # OpenCV's blue, green, red
    classes = 0
    for kind in ("weight", "bias"):
        if (name := f"box_head.classes.{kind}") in weights:
            weights[name] = weights[name].roll(1, 0)  # the last class is the background
            classes = len(weights[name]) - 1
        for name in (f"rpn_head.deltas.{kind}", f"box_head.deltas.{kind}"):
            if name in weights:
                weights[name] = swap_xy(weights[name])
    for kind in ("weight", "bias"):
        name = f"box_head.deltas.{kind}"
        if name in weights and len(weights[name]) == 4 * classes:
            none = weights[name].new_zeros((4, *weights[name].shape[1:]))  # the background has a box here, never used
            weights[name] = torch.cat([none, weights[name]])
    return Converted(weights, origins, tuple(f"class {i}" for i in range(1, classes + 1)))


def _detectron2_name(name: str) -> str:
    mask_conv = re.match(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$", name)
    if mask_conv:
        return f"mask_head.convs.{int(mask_conv[1]) - 1}.{mask_conv[2]}"
    for pattern, ours in _DETECTRON2_NAMES:
        renamed, count = re.subn(pattern, ours, name)
        if count:
            renamed = re.sub(r"<(\d)>", lambda found: str(int(found[1]) - 1), renamed)  # res2 is layer1
            return re.sub(r"\[(\d)\]", lambda found: str(int(found[1]) - 2), renamed)  # P2 is the first level
    return name


def _of_resenc(state: dict[str, Tensor], prefix: str) -> Converted:
    """The encoder; each layer is listed a second time under ``all_modules``, and again below the decoder."""
    own = {name for name in state if name.startswith(prefix) and ".all_modules." not in name}
    own = {name for name in own if name.removeprefix(prefix).startswith(("stem.", "stages."))}
    copies = {name for name in state if ".all_modules." in name or ".encoder." in name.removeprefix(prefix)}
    origins = {(ENCODER + name.removeprefix(prefix) if name in own else name): name for name in state.keys() - copies}
    weights = {ours: state[theirs] for ours, theirs in origins.items()}
    return Converted(weights, origins, stem=ENCODER + "stem.convs.0.conv.weight")

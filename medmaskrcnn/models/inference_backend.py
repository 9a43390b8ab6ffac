"""The parts of the network that another runtime runs: backbone, FPN and RPN head as one, the box head, the mask head.

What lies between them, proposals, RoIAlign and the choice of detections, depends on what is in the image and stays with
torch. Where the backbone's last stage runs on regions (``pyramid: c4``), so does that stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medmaskrcnn.models.runtime.openvino_engine import OpenVINOProgram
from medmaskrcnn.models.runtime.torch_compile import TorchCompiled

# Regions at a time: so many that the weights are not read too often, so few that little is filled up. Of a ResNet-50 on
# 2 cores 4 masks at a time take a quarter more each than 20, and 100 a tenth less.
_ROWS = {"dense": None, "box_head": 128, "mask_head": 20}


@dataclass(frozen=True, eq=False)
class InferenceBackend:
    """What runs in place of the network's own layers.

    Attributes:
        engine: What runs them, with its version.
        dense: For :class:`~medmaskrcnn.models.dense_part.DensePart`.
        box_head: For the box head.
        mask_head: For the mask head, if there is one.
        quantised: Whether they compute in 8 bits.
    """

    engine: str
    dense: nn.Module
    box_head: nn.Module
    mask_head: nn.Module | None = None
    quantised: bool = False


def compile_parts(
    parts: Mapping[str, nn.Module],
    *,
    precision: str,
    name: str,
    quantised: Mapping[str, Path] | None = None,
    folder: Path | None = None,
) -> InferenceBackend:
    """Make parts of a network ready to be run by OpenVINO; each is compiled when it is first called.

    Args:
        parts: By name, from :meth:`medmaskrcnn.models.mask_rcnn.MaskRCNN.parts`.
        precision: ``fp32`` or ``bf16``.
        name: Hash of the model.
        quantised: The 8-bit form of each part, to be run in its place.
        folder: Where programs are kept; the user's cache folder by default.
    """
    made = {
        part: OpenVINOProgram(
            module,
            precision=precision,
            name=f"{name} {part}",
            rows=_ROWS[part],
            quantised=quantised[part] if quantised else None,
            folder=folder,
        )
        for part, module in parts.items()
    }
    return InferenceBackend(engine=f"openvino {made['dense'].version}", quantised=quantised is not None, **made)


def compile_dense(parts: Mapping[str, nn.Module]) -> InferenceBackend:
    """Backbone, FPN and RPN head by ``torch.compile``, when they are first called; the heads as they are.

    Args:
        parts: By name, where and in what precision they are to run.
    """
    return InferenceBackend(
        engine=f"torch-compile {torch.__version__}",
        dense=TorchCompiled(parts["dense"]),
        box_head=parts["box_head"],
        mask_head=parts.get("mask_head"),
    )


def quantised_folder(model: Path, sha256: str) -> Path:
    """Where the 8-bit form of a model lies: a folder beside it, under a name that holds the model's hash."""
    return model.with_name(f"{model.stem}-{sha256[:12]}-int8")


def quantised_forms(folder: Path, parts: Mapping[str, nn.Module]) -> dict[str, Path]:
    """The 8-bit form of each part in such a folder; the weights of an ``.xml`` lie beside it in a ``.bin``."""
    return {part: folder / f"{part}.xml" for part in parts}

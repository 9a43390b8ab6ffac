"""The parts of the network that other runtimes run: backbone, FPN and RPN head as one, the box head, the mask head.

The steps between them (proposals, RoIAlign, selection of detections) depend on the image content and stay in torch, as
does the backbone's last stage if it runs on regions (``pyramid: c4``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medmaskrcnn.models.runtime.openvino_engine import OpenVINOProgram
from medmaskrcnn.models.runtime.torch_compile import TorchCompiled

# Regions per pass: enough that the weights are not read too often, and few enough for little padding. For a ResNet-50
# on 2 cores, the time per mask is a quarter longer with 4 masks per pass than with 20, and a tenth shorter with 100.
_ROWS = {"dense": None, "box_head": 128, "mask_head": 20}


@dataclass(frozen=True, eq=False)
class InferenceBackend:
    """Compiled parts that run in place of the network's own layers.

    Attributes:
        engine: Name and version of the runtime.
        dense: Replaces :class:`~medmaskrcnn.models.dense_part.DensePart`.
        box_head: Replaces the box head.
        mask_head: Replaces the mask head, if there is one.
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
        quantised: The 8-bit form of each part, to run in its place.
        folder: Cache of compiled programs; by default in the user's cache folder.
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
    """Compile backbone, FPN and RPN head with ``torch.compile`` when they are first called; the heads stay as they are.

    Args:
        parts: By name, on the device and in the precision of inference.
    """
    return InferenceBackend(
        engine=f"torch-compile {torch.__version__}",
        dense=TorchCompiled(parts["dense"]),
        box_head=parts["box_head"],
        mask_head=parts.get("mask_head"),
    )


def quantised_folder(model: Path, sha256: str) -> Path:
    """Folder of the 8-bit form of a model: beside the model file, with the model's hash in its name."""
    return model.with_name(f"{model.stem}-{sha256[:12]}-int8")


def quantised_forms(folder: Path, parts: Mapping[str, nn.Module]) -> dict[str, Path]:
    """File of the 8-bit form of each part in such a folder; the weights of an ``.xml`` are in a ``.bin`` beside it."""
    return {part: folder / f"{part}.xml" for part in parts}

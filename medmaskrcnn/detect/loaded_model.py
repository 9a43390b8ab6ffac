"""A model file opened and its network made ready to run on a device."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from medmaskrcnn.config import ModelFileSettings
from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.models.dense_part import DensePart
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched
from medmaskrcnn.models.model_file import model_sha256, read_model, resolve_model
from medmaskrcnn.runtime.choice import how_to_run
from medmaskrcnn.runtime.device import choose_device
from medmaskrcnn.runtime.openvino_engine import OpenVINOProgram, check_engine, quantised_form
from medmaskrcnn.runtime.precision import choose_precision

DEFAULT_MODEL = "phantom-ct"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network ready to run, with what its file says.

    Attributes:
        network: On :attr:`device`, in evaluation mode.
        settings: Settings and card of the file.
        sha256: Hash of the file.
        device: Where it runs.
        watch: Is shown what the network makes at each step, as :meth:`MaskRCNN.detect` says, and before and after it
            ``"input"`` (the padded images) and ``"masks"`` (the detections).
    """

    network: MaskRCNN
    settings: ModelFileSettings
    sha256: str
    device: torch.device
    watch: Watch = unwatched

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16``, or ``int8`` where the dense part is quantised."""
        program = self.network.compiled
        return "int8" if program is not None and program.quantised is not None else self.network.precision

    @property
    def engine(self) -> str:
        """What runs the dense part, with its version."""
        program = self.network.compiled
        return f"torch {torch.__version__}" if program is None else f"openvino {program.version}"


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
) -> LoadedModel:
    """Load a shipped model by name, or any model file by path.

    Args:
        name_or_path: See ``medmaskrcnn models`` for the names.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (what the model's settings say, else the rule of :mod:`medmaskrcnn.runtime.precision`),
            ``fp32`` or ``bf16``; ``int8`` with engine ``openvino``, of a model with its 8-bit form beside it.
        engine: What runs backbone, FPN and RPN head: ``auto`` (what the model's settings say for a CPU, else torch),
            ``torch``, or ``openvino`` on a CPU.

    Raises:
        ModelFileError: if the model is unknown or its file damaged.
        ValueError: if the device or engine is not there, or the precision unknown.
    """
    path = resolve_model(name_or_path)
    where = choose_device(device)
    network, settings = read_model(path)
    precision, engine = how_to_run(settings.inference, precision, engine, where)
    check_engine(engine)
    sha256 = model_sha256(path)
    eight_bits = engine == "openvino" and precision == "int8"
    chosen = choose_precision("auto" if eight_bits else precision, where, spatial_dims=settings.model.spatial_dims)
    if engine == "openvino":
        if where.type != "cpu":
            raise ValueError(f"engine openvino runs on the CPU, not on {where.type}; use --device cpu")
        part = DensePart(network.pyramid, network.rpn_head).eval()
        quantised = quantised_form(path, sha256) if eight_bits else None
        if quantised is not None and not quantised.is_file():
            raise ModelFileError(
                f"model {path} has no 8-bit form beside it ({quantised.name}); make one with medmaskrcnn export"
            )
        network.compiled = OpenVINOProgram(part, precision=chosen, name=sha256, quantised=quantised)
    return LoadedModel(network.run_in(chosen).to(where), settings, sha256, where)

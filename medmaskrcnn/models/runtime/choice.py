"""Chooses the runtime of a network's layers; ``auto`` means the model's own settings, then the rule by processor."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.settings import InferenceSettings

ENGINES = ("torch", "openvino", "torch-compile")
_HOME = {"openvino": "cpu", "torch-compile": "cuda"}  # device on which a model's settings may choose it


def resolve_runtime(inference: InferenceSettings, precision: str, engine: str, device: torch.device) -> tuple[str, str]:
    """Resolve the precision and engine with which to run a model.

    With ``auto``, the settings' OpenVINO applies on a CPU only, torch-compile on CUDA only, int8 with OpenVINO only.

    Args:
        inference: The model's own settings.
        precision: The requested one; ``auto`` takes that of the settings, and stays ``auto`` if they leave it open.
        engine: The requested one; ``auto`` takes that of the settings.
        device: Device on which the network runs.

    Raises:
        InvalidOptionError: if the engine is unknown, not installed, or does not run there; the message says what to do.
    """
    if engine == "auto":
        engine = inference.engine if _HOME.get(inference.engine) == device.type else "torch"
    if engine not in ENGINES:
        raise InvalidOptionError("engine", f"engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")
    if engine == "openvino" and device.type != "cpu":
        raise InvalidOptionError(
            "engine", f"engine openvino runs on the CPU, not on {device.type}; choose cpu as device"
        )
    if engine == "openvino" and find_spec("openvino") is None:
        what = 'engine openvino is not installed; get it with: pip install "medmaskrcnn[openvino]"'
        raise InvalidOptionError("engine", what)
    if precision == "auto" and (inference.precision != "int8" or engine == "openvino"):
        precision = inference.precision
    return precision, engine

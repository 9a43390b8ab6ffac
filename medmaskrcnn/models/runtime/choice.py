"""What runs a network's layers, and what ``auto`` means: a model's own settings first, then the rule by processor."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.settings import InferenceSettings

ENGINES = ("torch", "openvino", "torch-compile")
_HOME = {"openvino": "cpu", "torch-compile": "cuda"}  # where a model's own settings choose it


def resolve_runtime(inference: InferenceSettings, precision: str, engine: str, device: torch.device) -> tuple[str, str]:
    """Precision and engine to run a model with.

    What its settings say of OpenVINO holds on a CPU, and of 8 bits where OpenVINO runs it; of torch-compile on a GPU.

    Args:
        inference: The model's own settings.
        precision: As asked for; ``auto`` leaves it to the settings, and what they leave stays ``auto``.
        engine: As asked for; ``auto`` leaves it to the settings.
        device: Where the network runs.

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

"""What ``auto`` means for precision and engine: a model's own settings first, then the rule by processor."""

from __future__ import annotations

import torch

from medmaskrcnn.config import InferenceSettings


def how_to_run(inference: InferenceSettings, precision: str, engine: str, device: torch.device) -> tuple[str, str]:
    """Precision and engine to run a model with.

    What its settings say of OpenVINO holds on a CPU, and of 8 bits where OpenVINO runs it.

    Args:
        inference: The model's own settings.
        precision: As asked for; ``auto`` leaves it to the settings, and what they leave stays ``auto``.
        engine: As asked for; ``auto`` leaves it to the settings.
        device: Where the network runs.
    """
    if engine == "auto":
        engine = inference.engine if device.type == "cpu" else "torch"
    if precision == "auto" and (inference.precision != "int8" or engine == "openvino"):
        precision = inference.precision
    return precision, engine

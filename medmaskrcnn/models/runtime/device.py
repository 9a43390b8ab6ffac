"""Choice of the device on which a model runs."""

from __future__ import annotations

import torch

from medmaskrcnn.errors import InvalidOptionError


def choose_device(name: str) -> torch.device:
    """The device for a name; ``auto`` takes an NVIDIA or AMD GPU, else an Apple GPU, else the CPU.

    Raises:
        InvalidOptionError: if the name is unknown or the device is not available.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if name not in present:
        raise InvalidOptionError("device", f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not present[name]:
        raise InvalidOptionError(
            "device", f"device {name} was asked for, but torch finds none here; choose auto or cpu"
        )
    return torch.device(name)

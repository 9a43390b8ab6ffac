"""Precision in which the network runs: one rule by processor, which the user may override.

The rule (``auto``): bfloat16 on a CPU that multiplies it natively (AMX or AVX512-BF16), where it halves the time;
float32, the reference, everywhere else. It depends only on the type of processor, so that machines of one type give
the same result; the result records the precision used.

In bfloat16 the convolutions and linear layers run in half precision; logits, deltas, decoded boxes, overlaps and
suppression stay float32 whatever is chosen, and so do the weights of the last layer of each head.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import InvalidOptionError

Precision = Literal["fp32", "bf16"]
PRECISIONS = ("auto", *get_args(Precision))

_NATIVE = ("amx_bf16", "avx512_bf16")
_LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def processor_features() -> dict[str, Any]:
    """Capabilities of the CPU as reported by torch; empty if torch does not report them."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.10 and later
    return dict(ask()) if ask else {}


def multiplies_bf16() -> bool:
    """Whether this processor multiplies bfloat16 natively."""
    features = processor_features()
    return any(features.get(name) for name in _NATIVE)


def choose_precision(asked: str, device: torch.device) -> Precision:
    """Choose the precision in which the network runs.

    Args:
        asked: ``auto`` (the rule above), ``fp32`` or ``bf16``.
        device: Device on which the network runs.

    Raises:
        InvalidOptionError: if the name is unknown.
    """
    if asked == "int8":
        raise InvalidOptionError("precision", "precision int8 needs engine openvino")
    if asked not in PRECISIONS:
        raise InvalidOptionError("precision", f"precision must be one of {', '.join(PRECISIONS)}, got {asked!r}")
    if asked == "auto":
        return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"
    return "bf16" if asked == "bf16" else "fp32"


def to_channels_last(network: nn.Module, *, exact: Collection[nn.Module]) -> None:
    """Prepare a network for :func:`autocast_context` in bfloat16, in place: weights rounded once, channels last.

    Args:
        network: In evaluation mode.
        exact: Layers whose weights stay float32.
    """
    kept = {id(layer) for layer in exact}
    for layer in network.modules():
        if isinstance(layer, _LAYERS) and id(layer) not in kept:
            layer.to(torch.bfloat16)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def channels_last(images: Tensor) -> Tensor:
    """2D images ``(B, C, H, W)`` with their channels last in memory; others as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def autocast_context(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which the network's layers run in ``precision``; float32 leaves the current context unchanged."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

"""Runs a module with ``torch.compile``: one program for images of every size, on a CPU or a GPU.

Sizes are symbolic, so that a new size needs no recompilation; torch compiles a separate program for a batch of one
image. It caches compiled programs for later processes (``TORCHINDUCTOR_CACHE_DIR``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import MedMaskRCNNError, Remedy


class TorchCompiled(nn.Module):
    """Replaces a module from one tensor to several.

    Args:
        module: On the device and in the precision of inference, in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._compiled = torch.compile(module, dynamic=True)
        self._ran = False

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Run on ``(B, C, *spatial)``; the first call takes a minute or more.

        Raises:
            MedMaskRCNNError: if it cannot be compiled here.
        """
        try:
            made: tuple[Tensor, ...] = self._compiled(inputs)
        except RuntimeError as error:
            if self._ran or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0]
            raise MedMaskRCNNError(
                f"torch.compile failed ({reason}). It needs a C++ compiler on a CPU and Triton on a GPU",
                Remedy.USE_TORCH,
            ) from error
        self._ran = True
        return made

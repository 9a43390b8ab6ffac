"""A module by ``torch.compile``: one program for images of every size, on a CPU or a GPU.

Sizes are symbols of the program, so that a further one compiles nothing; a batch of one image is a program of its own,
which torch makes by itself. What was compiled torch keeps for later processes (``TORCHINDUCTOR_CACHE_DIR``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import MedMaskRCNNError, Remedy


class TorchCompiled(nn.Module):
    """Stands in for a module from one tensor to several.

    Args:
        module: Where it is to run, and in its precision, in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._compiled = torch.compile(module, dynamic=True)
        self._ran = False

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Run on ``(B, C, *spatial)``; the first time takes a minute or more.

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

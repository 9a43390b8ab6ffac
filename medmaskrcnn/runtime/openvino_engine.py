"""The dense part of the network by OpenVINO: compiled for one image shape at a time, kept on disk.

A compiled program is found again by all that it depends on: the model's hash, the shape, the precision, the version of
OpenVINO, the processor. Without one the module is converted and compiled, which takes seconds to a minute.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import OutputError
from medmaskrcnn.runtime.precision import processor_features
from medmaskrcnn.structures.files import write_bytes

ENGINES = ("torch", "openvino")
_HINTS = {"fp32": "f32", "bf16": "bf16"}

logger = logging.getLogger(__name__)


def check_engine(name: str) -> None:
    """Refuse an engine that is unknown or not installed.

    Raises:
        ValueError: if it is; the message says how to install it.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "openvino" and find_spec("openvino") is None:
        raise ValueError('engine openvino is not installed; get it with: pip install "medmaskrcnn[openvino]"')


def cache_folder() -> Path:
    """Where compiled programs are kept: ``medmaskrcnn/openvino`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "medmaskrcnn" / "openvino"


def quantised_form(model: Path, sha256: str) -> Path:
    """Where the 8-bit form of a model lies: beside it, under a name that holds the model's hash."""
    return model.with_name(f"{model.stem}-{sha256[:12]}-int8.xml")


class OpenVINOProgram:
    """A module from one image batch to a flat tuple of tensors, run by OpenVINO on the CPU.

    Args:
        module: In float32 on the CPU, in evaluation mode; converted where no program is kept.
        precision: ``fp32`` or ``bf16``: what the processor multiplies in.
        name: Hash of the model.
        quantised: An 8-bit form of the module to run in its place (``.xml`` with its ``.bin``); what is not quantised
            in it runs in ``precision``.
        folder: Where programs are kept; :func:`cache_folder` by default.
    """

    def __init__(
        self, module: nn.Module, *, precision: str, name: str, quantised: Path | None = None, folder: Path | None = None
    ) -> None:
        import openvino

        self.module = module
        self.precision = precision
        self.name = name
        self.quantised = quantised
        self.folder = cache_folder() if folder is None else folder
        self.version = str(openvino.get_version())
        self._core = openvino.Core()
        self._programs: dict[tuple[int, ...], Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run on ``(B, C, *spatial)`` float32.

        Returns:
            float32 tensors in OpenVINO's own memory: they hold until the next call with this shape.
        """
        shape = tuple(images.shape)
        if shape not in self._programs:
            self._programs[shape] = self._program(shape).create_infer_request()
        request = self._programs[shape]
        made = request.infer([images.float().contiguous().numpy()], share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(made[i]) for i in range(len(made)))

    def file(self, shape: Sequence[int]) -> Path:
        """Where the program for a shape is kept."""
        parts = [self.name, self.precision, str(tuple(shape)), self.version, str(processor_features().get("cpu_name"))]
        if self.quantised is not None:
            parts.append(hashlib.sha256(self.quantised.with_suffix(".bin").read_bytes()).hexdigest())
        return self.folder / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.blob"

    def _program(self, shape: tuple[int, ...]) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        file = self.file(shape)
        if file.is_file():
            try:
                return self._core.import_model(file.read_bytes(), "CPU", settings)
            except RuntimeError:
                logger.warning("the compiled program %s is damaged; it is made again", file.name)
        model = converted(self.module, shape) if self.quantised is None else self._core.read_model(self.quantised)
        model.reshape(list(shape))
        program = self._core.compile_model(model, "CPU", settings)
        try:
            write_bytes(file, program.export_model().getvalue())
        except OutputError as error:
            logger.warning("the compiled program is not kept: %s", error)
        return program


def converted(module: nn.Module, shape: Sequence[int]) -> Any:
    """An OpenVINO model of a module, for images of any size, made by following one of ``shape``."""
    import warnings

    import openvino

    # Without autocast, in whose context a bf16 network asks for this: it would put rounded weights into the model.
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracing, which is OpenVINO's choice
        return openvino.convert_model(module, example_input=torch.zeros(tuple(shape)))

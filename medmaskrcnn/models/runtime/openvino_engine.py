"""Parts of the network by OpenVINO: compiled for one shape of input at a time, kept on disk.

A compiled program is found again by all that it depends on: the model's hash and the part of it, the shape, the
precision, the version of OpenVINO, the processor. Without one the module is converted and compiled, which takes seconds
to a minute.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import OutputError
from medmaskrcnn.models.runtime.precision import processor_features
from medmaskrcnn.system.files import write_bytes

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_MAP_DIMS = 4  # 2D maps go in and out with channels last; in 3D what RoIAlign gains the dense part loses

logger = logging.getLogger(__name__)


def imported_openvino() -> Any:
    """The package ``openvino``, which then reports nothing to anyone.

    By itself it tells Google Analytics of each import and conversion, which is nothing for a hospital, and may
    take longer than the conversion. What reports is openvino_telemetry; OpenVINO and NNCF work without it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: import fails
    import openvino

    return openvino


def cache_folder() -> Path:
    """Where compiled programs are kept: ``medmaskrcnn/openvino`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "medmaskrcnn" / "openvino"


class OpenVINOProgram(nn.Module):
    """Stands in for a module from one tensor to one or several, and is run by OpenVINO on the CPU.

    Args:
        module: In float32 on the CPU, in evaluation mode; converted where no program is kept.
        precision: ``fp32`` or ``bf16``: what the processor multiplies in.
        name: Hash of the model, and which part of it the module is.
        rows: Run so many rows of the input at a time, or a quarter of them where few are left, the last ones filled up
            with zeros: for regions, whose number is never the same. By default all at once: for images.
        quantised: An 8-bit form of the module to run in its place (``.xml`` with its ``.bin``); what is not quantised
            in it runs in ``precision``.
        folder: Where programs are kept; :func:`cache_folder` by default.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        precision: str,
        name: str,
        rows: int | None = None,
        quantised: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.name = name
        self.rows = rows
        self.quantised = quantised
        self.folder = cache_folder() if folder is None else folder
        openvino = imported_openvino()
        self.version = str(openvino.get_version())
        self._core = openvino.Core()
        self._converted = partial(converted, module)  # not an attribute of its own: its weights are not this module's
        self._inference_backend: dict[tuple[int, ...], Any] = {}

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run on ``(B, C, *spatial)``.

        Returns:
            What the module makes, in float32. Without ``rows`` it lies in OpenVINO's own memory: it holds until the
            next call with this shape.
        """
        made = self._run(inputs) if self.rows is None else self._run_in_chunks(inputs, self.rows)
        return made[0] if len(made) == 1 else tuple(made)

    def _run(self, inputs: Tensor) -> list[Tensor]:
        shape = tuple(inputs.shape)
        if shape not in self._inference_backend:
            self._inference_backend[shape] = self._program(shape).create_infer_request()
        request = self._inference_backend[shape]
        given = _channels_last(inputs.float()).contiguous()
        made = request.infer([given.numpy()], share_inputs=True, share_outputs=True)
        return [_channels_first(torch.from_numpy(made[i])) for i in range(len(made))]

    def _run_in_chunks(self, inputs: Tensor, rows: int) -> list[Tensor]:
        whole: list[Tensor] = []
        for start, size in pieces(len(inputs), rows):
            chunk = inputs[start : start + size]
            missing = inputs.new_zeros((size - len(chunk), *inputs.shape[1:]))
            made = self._run(torch.cat([chunk, missing]) if len(missing) else chunk)
            whole = whole or [m.new_empty((len(inputs), *m.shape[1:])) for m in made]
            for all_rows, some in zip(whole, made, strict=True):
                all_rows[start : start + len(chunk)] = some[: len(chunk)]
        return whole

    def file(self, shape: Sequence[int]) -> Path:
        """Where the program for a shape is kept."""
        processor = str(processor_features().get("cpu_name"))
        parts = [self.name, self.precision, str(tuple(shape)), self.version, processor, "2D channels last"]
        if self.quantised is not None:
            parts.append(hashlib.sha256(self.quantised.with_suffix(".bin").read_bytes()).hexdigest())
        return self.folder / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.blob"

    def _program(self, shape: tuple[int, ...]) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.quantised is None:
            # OpenVINO 2026.4 fuses element by element what lies between convolutions. On a stage of two residual blocks
            # with GroupNorm, the first of them strided, that crashes the process in fp32. Of a network in fp32 or bf16
            # it saves no time; in 8 bits it crashes nothing, and saves up to a tenth.
            settings["SNIPPETS_MODE"] = "DISABLE"
        file = self.file(shape)
        if file.is_file():
            try:
                return self._core.import_model(file.read_bytes(), "CPU", settings)
            except RuntimeError:
                logger.warning("the compiled program %s is damaged; it is made again", file.name)
        model = self._converted(shape) if self.quantised is None else self._core.read_model(self.quantised)
        model.reshape(list(shape))
        program = self._core.compile_model(_of_channels_last(model), "CPU", settings)
        try:
            write_bytes(file, program.export_model().getvalue())
        except OutputError as error:
            logger.warning("the compiled program is not kept: %s", error)
        return program


def pieces(count: int, rows: int) -> Iterator[tuple[int, int]]:
    """First row and size of each chunk: of ``rows``, then of a quarter of that where less would be filled up.

    Without any row there is one chunk all the same, for the shapes of what is made.
    """
    few, start = max(1, rows // 4), 0
    while start < max(count, 1):
        size = rows if count - start > rows - few else few
        yield start, size
        start += size


def converted(module: nn.Module, shape: Sequence[int]) -> Any:
    """An OpenVINO model of a module, for inputs of any size, made by following one of ``shape``."""
    import warnings

    openvino = imported_openvino()
    # Without autocast, in whose context a bf16 network asks for this: it would put rounded weights into the model.
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracing, which is OpenVINO's choice
        return openvino.convert_model(module, example_input=torch.zeros(tuple(shape)))


def _of_channels_last(model: Any) -> Any:
    """The same model of 2D maps ``(B, *spatial, C)``: as OpenVINO computes, and as RoIAlign reads fastest."""
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    around = PrePostProcessor(model)
    for ports, side in ((model.inputs, around.input), (model.outputs, around.output)):
        for number, port in enumerate(ports):
            if len(port.partial_shape) == _MAP_DIMS:
                side(number).tensor().set_layout(Layout("NHWC"))
                side(number).model().set_layout(Layout("NCHW"))
    return around.build()


def _channels_last(maps: Tensor) -> Tensor:
    return maps.movedim(1, -1) if maps.ndim == _MAP_DIMS else maps


def _channels_first(maps: Tensor) -> Tensor:
    return maps.movedim(-1, 1) if maps.ndim == _MAP_DIMS else maps

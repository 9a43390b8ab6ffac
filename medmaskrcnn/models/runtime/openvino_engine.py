"""Runs parts of the network with OpenVINO, compiled per input shape and cached on disk.

The cache key is everything on which a compiled program depends: the model's hash and the part of it, the shape, the
precision, the version of OpenVINO, the processor. Without a cached one the module is converted and compiled, which
takes seconds to a minute.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import OutputError
from medmaskrcnn.models.runtime.precision import processor_features
from medmaskrcnn.system.files import write_bytes

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_MAP_DIMS = 4  # 2D maps use channels last; in 3D the gain in RoIAlign is lost in the dense part

logger = logging.getLogger(__name__)


def imported_openvino() -> Any:
    """The package ``openvino``, imported with its telemetry disabled.

    By default it reports each import and conversion to Google Analytics, which is unacceptable in a hospital and may
    take longer than the conversion. The reports are sent by openvino_telemetry; OpenVINO and NNCF work without it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: import fails
    import openvino

    return openvino


@cache
def shared_core() -> Any:
    """The ``Core`` of this process, kept until its end.

    Each Core of OpenVINO 2026.4 gives the thread a stack for signals. When it goes, it frees its own and puts back the
    one that was there before, which may have been freed with another Core: the next signal that Python handles (Ctrl-C,
    the end of a data loader's worker) then ends the process.
    """
    return imported_openvino().Core()


def cache_folder() -> Path:
    """Folder of compiled programs: ``medmaskrcnn/openvino`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "medmaskrcnn" / "openvino"


class OpenVINOProgram(nn.Module):
    """Replaces a module from one tensor to one or several; OpenVINO runs it on the CPU.

    Args:
        module: In float32 on the CPU, in evaluation mode; converted if no program is cached.
        precision: ``fp32`` or ``bf16``: the precision of multiplications.
        name: Hash of the model and name of the part.
        rows: Run this many rows of the input at a time, or a quarter of them if few are left, padded with zeros: for
            regions, whose number varies. By default all at once: for images.
        quantised: An 8-bit form of the module to run in its place (``.xml`` with its ``.bin``); its layers that are not
            quantised run in ``precision``.
        folder: Cache of programs; :func:`cache_folder` by default.
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
        self._core = shared_core()
        self._converted = partial(converted, module)  # not a submodule: its weights are not this module's
        self._requests: dict[tuple[int, ...], Any] = {}

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run on ``(B, C, *spatial)``.

        Returns:
            The module's output, in float32. Without ``rows`` it lies in OpenVINO's own memory and is valid until the
            next call with this shape.
        """
        made = self._run(inputs) if self.rows is None else self._run_in_chunks(inputs, self.rows)
        return made[0] if len(made) == 1 else tuple(made)

    def _run(self, inputs: Tensor) -> list[Tensor]:
        shape = tuple(inputs.shape)
        if shape not in self._requests:
            self._requests[shape] = self._program(shape).create_infer_request()
        request = self._requests[shape]
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
        """Cache file of the program for a shape."""
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
            # OpenVINO 2026.4 fuses element-wise operations between convolutions. On a stage of two residual blocks with
            # GroupNorm, the first of them strided, this crashes the process in fp32. It saves no time in fp32 or bf16;
            # in 8 bits it does not crash and saves up to a tenth.
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
    """First row and size of each chunk: ``rows``, then a quarter of that if this needs less padding.

    Without any rows there is still one chunk, to obtain the shapes of the outputs.
    """
    few, start = max(1, rows // 4), 0
    while start < max(count, 1):
        size = rows if count - start > rows - few else few
        yield start, size
        start += size


def converted(module: nn.Module, shape: Sequence[int]) -> Any:
    """Convert a module to an OpenVINO model for inputs of any size, by tracing it with one of ``shape``."""
    import warnings

    openvino = imported_openvino()
    # Without autocast, which is active if a bf16 network calls this: it would put rounded weights into the model.
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from torch's tracing, which OpenVINO uses
        return openvino.convert_model(module, example_input=torch.zeros(tuple(shape)))


def _of_channels_last(model: Any) -> Any:
    """The same model for 2D maps ``(B, *spatial, C)``, OpenVINO's own layout and the fastest for RoIAlign."""
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

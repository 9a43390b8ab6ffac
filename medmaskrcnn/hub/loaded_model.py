"""Load a model file and prepare its network to run on a device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.hub.model_file import model_sha256, read_model, resolve_model
from medmaskrcnn.models.inference_backend import (
    InferenceBackend,
    compile_dense,
    compile_parts,
    quantised_folder,
    quantised_forms,
)
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched
from medmaskrcnn.models.runtime.choice import resolve_runtime
from medmaskrcnn.models.runtime.device import choose_device
from medmaskrcnn.models.runtime.precision import choose_precision
from medmaskrcnn.settings import ModelFileSettings, SegmentOptions

DEFAULT_MODEL = "phantom-ct"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network ready to run, with the settings from its file.

    Attributes:
        network: On :attr:`device`, in evaluation mode.
        settings: Settings and card of the file.
        sha256: Hash of the file.
        device: Where it runs.
        watch: Callback that receives the output of each step as described in :meth:`MaskRCNN.detect`, and before and
            after these ``"input"`` (the padded images) and ``"masks"`` (the detections).
    """

    network: MaskRCNN
    settings: ModelFileSettings
    sha256: str
    device: torch.device
    watch: Watch = unwatched

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16``, or ``int8`` if its parts are quantised."""
        backend = self.network.compiled
        return "int8" if backend is not None and backend.quantised else self.network.precision

    @property
    def engine(self) -> str:
        """What runs the network's layers, with its version."""
        backend = self.network.compiled
        return f"torch {torch.__version__}" if backend is None else backend.engine


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
) -> LoadedModel:
    """Load a shipped model by name, or any model file by path.

    Args:
        name_or_path: See ``medmaskrcnn models`` for the names.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (the model's setting, else the rule of
            :mod:`medmaskrcnn.models.runtime.precision`), ``fp32`` or ``bf16``; ``int8`` with engine ``openvino``, for a
            model with its quantised files beside it.
        engine: What runs the layers: ``auto`` (the model's setting if it applies to the device, else torch), ``torch``,
            ``openvino`` on a CPU, or ``torch-compile``: backbone, FPN and RPN head by ``torch.compile``, which takes a
            minute or more on the first image.

    Raises:
        ModelFileError: if the model is unknown, its file damaged, or quantised files are missing.
        InvalidOptionError: if the device or engine is not available, or the precision unknown; a ``ValueError``.
    """
    path = resolve_model(name_or_path)
    where = choose_device(device)
    network, settings = read_model(path)
    precision, engine = resolve_runtime(settings.inference, precision, engine, where)
    sha256 = model_sha256(path)
    eight_bits = engine == "openvino" and precision == "int8"
    chosen = choose_precision("auto" if eight_bits else precision, where)
    if engine == "openvino":
        network.compiled = _inference_backend(network, path, sha256, precision=chosen, eight_bits=eight_bits)
    network = network.run_in(chosen).to(where)
    if engine == "torch-compile":
        network.compiled = compile_dense(network.parts())
    return LoadedModel(network, settings, sha256, where)


def load_as_asked(model: str | os.PathLike[str] | LoadedModel, options: SegmentOptions) -> LoadedModel:
    """Load a model as the options specify; a loaded one is returned unchanged. Errors as for :func:`load_model`."""
    if isinstance(model, LoadedModel):
        return model
    return load_model(model, device=options.device, precision=options.precision, engine=options.engine)


def _inference_backend(
    network: MaskRCNN, path: Path, sha256: str, *, precision: str, eight_bits: bool
) -> InferenceBackend:
    parts = network.parts()
    if not eight_bits:
        return compile_parts(parts, precision=precision, name=sha256)
    folder = quantised_folder(path, sha256)
    forms = quantised_forms(folder, parts)
    files = [file.with_suffix(suffix) for file in forms.values() for suffix in (".xml", ".bin")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelFileError(
            f"model {path} has no 8-bit form beside it: the folder {folder.name} lacks {', '.join(missing)}. "
            f"Make it with: medmaskrcnn export {path} --to openvino-int8 --data MANIFEST"
        )
    return compile_parts(parts, precision=precision, name=sha256, quantised=forms)

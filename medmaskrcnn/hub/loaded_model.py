"""Load a model file and prepare its network to run on a device."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from medmaskrcnn.errors import InvalidOptionError, ModelFileError
from medmaskrcnn.hub.model_file import model_sha256, read_members, resolve_model
from medmaskrcnn.models.averaged import AveragedRCNN
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
from medmaskrcnn.structures.laterality import has_side

DEFAULT_MODEL = "phantom-ct"

Axis = Literal["D", "H", "W"]

_AXES: tuple[Axis, Axis, Axis] = ("D", "H", "W")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network ready to run, with the settings from its file.

    Attributes:
        network: On :attr:`device`, in evaluation mode; several are run as one, whose outputs are averaged.
        settings: Settings and card of the file.
        sha256: Hash of the file.
        device: Where it runs.
        watch: Callback that receives the output of each step as described in :meth:`MaskRCNN.detect`, and before and
            after these ``"input"`` (the padded images) and ``"masks"`` (the detections).
    """

    network: MaskRCNN | AveragedRCNN
    settings: ModelFileSettings
    sha256: str
    device: torch.device
    watch: Watch = unwatched

    @property
    def views(self) -> tuple[int, int]:
        """Number of networks and of ways in which an image is mirrored; the time of one image grows with both."""
        network = self.network
        return (1, 1) if isinstance(network, MaskRCNN) else (len(network.members), len(network.mirrors))

    @property
    def networks(self) -> tuple[MaskRCNN, ...]:
        """The network, or the several whose outputs are averaged."""
        return (self.network,) if isinstance(self.network, MaskRCNN) else tuple(self.network.networks())

    @property
    def only_network(self) -> MaskRCNN:
        """The network, for what can look at one only.

        Raises:
            ModelFileError: if there are several, or its outputs on mirrored images are averaged.
        """
        if isinstance(self.network, MaskRCNN):
            return self.network
        raise ModelFileError(
            f"model {self.settings.card.name} averages {self.views[0]} networks on {self.views[1]} views of an image, "
            "and this needs one: give the model of a fold (fold0/best.safetensors of its training), without flips"
        )

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
    flips: Sequence[Axis] | None = None,
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
        flips: Axes of the network (``"D"``, ``"H"``, ``"W"``) to mirror, with the mean of what is found; by default the
            model's setting.

    Raises:
        ModelFileError: if the model is unknown, its file damaged, or quantised files are missing.
        InvalidOptionError: if the device or engine is not available, or the precision unknown; a ``ValueError``.
    """
    path = resolve_model(name_or_path)
    where = choose_device(device)
    members, settings = read_members(path)
    mirrored = _mirrored_axes(settings, settings.inference.flips if flips is None else flips)
    precision, engine = resolve_runtime(settings.inference, precision, engine, where)
    sha256 = model_sha256(path)
    eight_bits = engine == "openvino" and precision == "int8"
    if eight_bits and len(members) > 1:
        what = f"int8 is for models of one network, and {path} holds those of {len(members)} folds: use fp32 or bf16"
        raise InvalidOptionError("precision", what)
    chosen = choose_precision("auto" if eight_bits else precision, where)
    for number, network in enumerate(members):
        if engine == "openvino":
            name = sha256 if len(members) == 1 else f"{sha256} {number}"
            network.compiled = _inference_backend(network, path, name, precision=chosen, eight_bits=eight_bits)
        network.run_in(chosen).to(where)
        if engine == "torch-compile":
            network.compiled = compile_dense(network.parts())
    if len(members) == 1 and not mirrored:
        return LoadedModel(members[0], settings, sha256, where)
    several = AveragedRCNN(members, mirrored)
    log.info("%d networks on %d views of an image", len(members), len(several.mirrors))
    return LoadedModel(several, settings, sha256, where)


def load_as_asked(model: str | os.PathLike[str] | LoadedModel, options: SegmentOptions) -> LoadedModel:
    """Load a model as the options specify; a loaded one is returned unchanged. Errors as for :func:`load_model`."""
    if isinstance(model, LoadedModel):
        return model
    return load_model(
        model, device=options.device, precision=options.precision, engine=options.engine, flips=options.flips
    )


def _mirrored_axes(settings: ModelFileSettings, flips: Sequence[Axis]) -> tuple[int, ...]:
    """Indices of the axes to mirror among those of the network.

    Raises:
        InvalidOptionError: if the network has no such axis, or it may be the left-right one of classes with sides.
    """
    axes = _AXES[3 - settings.model.spatial_dims :]
    unknown = [axis for axis in flips if axis not in axes]
    if unknown:
        raise InvalidOptionError("flips", f"the model has no axis {', '.join(unknown)}; its axes are {', '.join(axes)}")
    sided = sorted(filter(has_side, settings.model.class_names))
    crossing = set(flips) if settings.preprocess.orientation == "acquisition" else {"W"} & set(flips)
    if sided and crossing and settings.preprocess.orientation != "as_stored":
        raise InvalidOptionError(
            "flips",
            f"mirroring {', '.join(sorted(crossing))} swaps left and right, but these classes have sides: {sided}",
        )
    return tuple(axes.index(axis) for axis in dict.fromkeys(flips))


def _inference_backend(
    network: MaskRCNN, path: Path, name: str, *, precision: str, eight_bits: bool
) -> InferenceBackend:
    """What runs a network's parts by OpenVINO; ``name`` is the file's hash, and the network's number among several."""
    parts = network.parts()
    if not eight_bits:
        return compile_parts(parts, precision=precision, name=name)
    folder = quantised_folder(path, name)
    forms = quantised_forms(folder, parts)
    files = [file.with_suffix(suffix) for file in forms.values() for suffix in (".xml", ".bin")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelFileError(
            f"model {path} has no 8-bit form beside it: the folder {folder.name} lacks {', '.join(missing)}. "
            f"Make it with: medmaskrcnn export {path} --to openvino-int8 --data MANIFEST"
        )
    return compile_parts(parts, precision=precision, name=name, quantised=forms)

"""Model files: one ``.safetensors`` file with fp16 weights and, in its header, all settings and the model card.

Nothing is unpickled. Settings can be read without torch, so that ``info`` and ``models`` stay fast. The header also has
a checksum of settings and weights: otherwise a flipped bit would pass as a valid weight.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medmaskrcnn.errors import MedMaskRCNNError, ModelFileError, one_line
from medmaskrcnn.hub.torchvision_files import PREFIX, SUFFIXES, torchvision_file
from medmaskrcnn.settings import ModelFileSettings, ModelSettings
from medmaskrcnn.settings.migration import to_current_names
from medmaskrcnn.system.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from medmaskrcnn.models.mask_rcnn import MaskRCNN

SUFFIX = ".safetensors"
_METADATA_KEY = "medmaskrcnn"
_CHECKSUM_KEY = "medmaskrcnn_sha256"
_ALIGNMENT = 8  # bytes: safetensors requires the weights to begin at a multiple of it
_LARGEST_HEADER = 16 * 1024 * 1024  # bytes; ours are below 100 kB
_SHIPPED_FOLDER = Path(__file__).resolve().parent.parent / "weights"

ADDITIONS = _SHIPPED_FOLDER / "additions.json"
"""Settings of the shipped models that are newer than their files, by name."""


def shipped_models() -> dict[str, Path]:
    """File of each model that is shipped with the package, by name."""
    return {path.stem: path for path in sorted(_SHIPPED_FOLDER.glob(f"*{SUFFIX}"))}


def _with_additions(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings of a shipped file, with what is newer than the file: aliases of classes, the look of its own scans.

    The files stay as they are: their SHA-256 stands in results and in the ledgers of batches.
    """
    added = json.loads(ADDITIONS.read_text("utf-8")).get(name, {})
    return {**content, **added, "card": {**content["card"], **added.get("card", {})}}


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a shipped model by name, or of any other by path; ``torchvision:...`` for torchvision's weights.

    Raises:
        ModelFileError: if there is no such name or file.
    """
    shipped = shipped_models()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if str(name_or_path).startswith(PREFIX):
        return torchvision_file(str(name_or_path))
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(shipped) or "none"
    raise ModelFileError(f"unknown model {str(name_or_path)!r}: no such file, and the shipped models are: {names}")


def read_model_settings(path: str | os.PathLike[str]) -> ModelFileSettings:
    """Read settings and card from the header of a model file (torch is imported for torchvision's files only).

    Raises:
        ModelFileError: if the file is not a medmaskrcnn model, is damaged, or was made by a newer version.
    """
    path = Path(path)
    if path.suffix in SUFFIXES:
        from medmaskrcnn.hub.torchvision_model import read_torchvision_settings

        return read_torchvision_settings(path)
    return _settings_of(path, _read_header(path))


def _settings_of(path: Path, header: dict[str, Any]) -> ModelFileSettings:
    metadata = header.get("__metadata__")
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelFileError(f"{path} is a safetensors file, but not a medmaskrcnn model (no settings inside)")
    try:
        content = to_current_names(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the settings inside model {path} are damaged: {one_line(error)}") from error
    if path.parent == _SHIPPED_FOLDER and isinstance(content, dict) and isinstance(content.get("card"), dict):
        content = _with_additions(content, path.stem)
    try:
        return ModelFileSettings.model_validate_json(json.dumps(content))
    except ValidationError as error:
        details = error.errors()
        if any(detail["loc"] == ("format_version",) for detail in details):
            raise ModelFileError(f"model {path} was made by a newer medmaskrcnn; upgrade to read it") from error
        where = ".".join(str(part) for part in details[0]["loc"])
        raise ModelFileError(
            f"the settings inside model {path} do not fit this version of medmaskrcnn: {where}: {details[0]['msg']}"
        ) from error


def _read_header(path: Path) -> dict[str, Any]:
    damaged = partial(ModelFileError, f"{path} is not a readable model file: it is damaged or of another format")
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= _LARGEST_HEADER:
                raise damaged()
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelFileError(f"cannot read model {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise damaged() from error
    if not isinstance(header, dict):
        raise damaged()
    return header


def model_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file in hexadecimal, which identifies a model uniquely."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(model: MaskRCNN, settings: ModelFileSettings, path: str | os.PathLike[str]) -> None:
    """Write weights and settings into one file atomically; the same model gives the same bytes.

    Parameters are stored in fp16, buffers (constants of frozen normalisation) in fp32.

    Raises:
        ValueError: if ``settings.model`` is not what ``model`` was built from, or a weight is not finite in fp16.
        OutputError: if the file cannot be written.
    """
    save_members([model], settings, path)


def save_members(models: Sequence[MaskRCNN], settings: ModelFileSettings, path: str | os.PathLike[str]) -> None:
    """As :func:`save_model` for networks whose outputs are averaged; ``settings.members`` is their number.

    Raises:
        ValueError: as :func:`save_model`, or if ``settings.members`` is another number.
        OutputError: if the file cannot be written.
    """
    if any(settings.model != model.settings for model in models):
        raise ValueError("settings.model differs from the settings the network was built from")
    if settings.members != len(models):
        raise ValueError(f"settings.members is {settings.members}, the number of networks {len(models)}")
    text = settings.model_dump_json()
    ModelFileSettings.model_validate_json(text)  # never write what cannot be read back (a NaN loss)
    weights = {
        _member_prefix(number, len(models)) + name: value
        for number, model in enumerate(models)
        for name, value in _stored_weights(model).items()
    }
    data = _serialise(weights, text)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _member_prefix(number: int, members: int) -> str:
    """What the names of a network's weights begin with; nothing if it is alone in its file."""
    return "" if members == 1 else f"members.{number}."


def _stored_weights(model: MaskRCNN) -> dict[str, Tensor]:
    """Parameters in fp16; buffers stay fp32, since a tiny running variance, a divisor, would be zero in fp16."""
    import torch

    constants = dict(model.named_buffers())
    stored = {}
    for name, value in model.state_dict().items():
        small = value.is_floating_point() and name not in constants
        stored[name] = value.detach().to("cpu", torch.float16 if small else value.dtype).contiguous()
        if not bool(torch.isfinite(stored[name]).all()):
            raise ValueError(
                f"weight {name} cannot be saved: it holds values that are not finite in {stored[name].dtype}"
            )
    return stored


def _serialise(weights: dict[str, Tensor], settings: str) -> bytes:
    """A safetensors file with sorted header entries (the library's order varies from run to run)."""
    from safetensors.torch import save

    data = save(weights)
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header["__metadata__"] = {_METADATA_KEY: settings}
    header["__metadata__"][_CHECKSUM_KEY] = _checksum(header, body)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + body


def _checksum(header: dict[str, Any], body: bytes) -> str:
    """SHA-256 of everything but the checksum itself: settings, names, shapes and bytes of the weights."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != _CHECKSUM_KEY}
    digest = hashlib.sha256(json.dumps({**header, "__metadata__": metadata}, sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()


def read_model(
    path: str | os.PathLike[str], *, build: Callable[[ModelSettings], MaskRCNN] | None = None
) -> tuple[MaskRCNN, ModelFileSettings]:
    """Read the only network of a model file (ours, or torchvision's ``.pth``), float32 on the CPU, in evaluation mode.

    Args:
        path: The file.
        build: Builds the network; :func:`medmaskrcnn.models.build.build_model` by default.

    Raises:
        ModelFileError: if the file is damaged, its weights do not match its settings, such a network cannot be built,
            or it holds several networks (:func:`read_members` reads these).
    """
    models, settings = read_members(path, build=build)
    if len(models) > 1:
        raise ModelFileError(
            f"model {path} holds the networks of {len(models)} folds, and this needs one: give the model of a fold "
            "(fold0/best.safetensors of its training)"
        )
    return models[0], settings


def read_members(
    path: str | os.PathLike[str], *, build: Callable[[ModelSettings], MaskRCNN] | None = None
) -> tuple[list[MaskRCNN], ModelFileSettings]:
    """Read all networks of a model file, as :func:`read_model` reads one.

    Raises:
        ModelFileError: if the file is damaged, its weights do not match its settings, or such a network cannot be
            built.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from medmaskrcnn.hub.torchvision_model import read_torchvision_model
    from medmaskrcnn.models.build import build_model

    path = Path(path)
    if path.suffix in SUFFIXES:
        model, settings = read_torchvision_model(path)
        return [model], settings
    header = _read_header(path)
    settings = _settings_of(path, header)
    data = path.read_bytes()
    checksum = header["__metadata__"].get(_CHECKSUM_KEY)
    if checksum is not None and checksum != _checksum(header, data[8 + struct.unpack("<Q", data[:8])[0] :]):
        raise ModelFileError(f"model {path} is damaged: its checksum is wrong; get the file again")
    try:
        weights = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"model {path} is damaged, its weights cannot be read: {one_line(error)}") from error
    try:
        with torch.random.fork_rng(devices=[]):  # building draws random weights; keep the caller's generator
            models = [(build or build_model)(settings.model) for _ in range(settings.members)]
        _fill(models, weights)
    except MedMaskRCNNError as error:
        raise ModelFileError(f"model {path} cannot be run: {error}") from error
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ModelFileError(f"the weights in model {path} do not fit its settings: {one_line(error)}") from error
    values = [value for model in models for value in model.state_dict().values()]
    if not all(bool(torch.isfinite(value).all()) for value in values if value.is_floating_point()):
        raise ModelFileError(f"model {path} is damaged: it holds weights that are not finite")
    return [model.eval() for model in models], settings


def _fill(models: Sequence[MaskRCNN], weights: dict[str, Tensor]) -> None:
    """Give each network its weights.

    Raises:
        RuntimeError: if some are missing, too many or of another shape.
    """
    unused = set(weights)
    for number, model in enumerate(models):
        prefix = _member_prefix(number, len(models))
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in own.items()})
        unused -= {prefix + name for name in own}
    if unused:
        raise RuntimeError(f"unexpected weights: {', '.join(sorted(unused)[:3])}")

"""A model is one ``.safetensors`` file: fp16 weights and, in its header, every setting and the model's card.

Nothing is unpickled. Settings can be read without torch, so that ``info`` and ``models`` stay quick.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from medmaskrcnn.config import ModelFileSettings
from medmaskrcnn.errors import ModelFileError

if TYPE_CHECKING:
    from medmaskrcnn.models.mask_rcnn import MaskRCNN

SUFFIX = ".safetensors"
_METADATA_KEY = "medmaskrcnn"
_LARGEST_HEADER = 16 * 1024 * 1024  # bytes; ours are below 100 kB
_SHIPPED_FOLDER = Path(__file__).resolve().parent.parent / "weights"


def shipped_models() -> dict[str, Path]:
    """Name and file of each model that comes with the package."""
    return {path.stem: path for path in sorted(_SHIPPED_FOLDER.glob(f"*{SUFFIX}"))}


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a shipped model, by name, or of any other, by path.

    Raises:
        ModelFileError: if there is neither.
    """
    shipped = shipped_models()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(shipped) or "none"
    raise ModelFileError(f"unknown model {str(name_or_path)!r}: no such file, and the shipped models are: {names}")


def read_model_settings(path: str | os.PathLike[str]) -> ModelFileSettings:
    """Settings and card of a model file, from its header alone (torch is not imported).

    Raises:
        ModelFileError: if the file is no model of ours, damaged, or made by a newer version.
    """
    path = Path(path)
    header = _read_header(path)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or _METADATA_KEY not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not a medmaskrcnn model (no settings inside)")
    try:
        return ModelFileSettings.model_validate_json(metadata[_METADATA_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelFileError(
            f"the settings inside model {path} do not fit this version of medmaskrcnn: {where}: {first['msg']}"
        ) from error


def _read_header(path: Path) -> dict[str, object]:
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
    """SHA-256 of the file in hexadecimal: names a model beyond doubt."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(model: MaskRCNN, settings: ModelFileSettings, path: str | os.PathLike[str]) -> None:
    """Write weights (fp16) and settings into one file, by way of a temporary name.

    Raises:
        ValueError: if ``settings.model`` is not what ``model`` was built from.
    """
    import torch
    from safetensors.torch import save_file

    if settings.model != model.settings:
        raise ValueError("settings.model differs from the settings the network was built from")
    weights = {
        name: value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(weights, str(temporary), metadata={_METADATA_KEY: settings.model_dump_json()})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_model(path: str | os.PathLike[str]) -> tuple[MaskRCNN, ModelFileSettings]:
    """The network of a model file, in float32 on the CPU, in evaluation mode.

    Raises:
        ModelFileError: if the file is damaged or its weights do not fit its settings.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from medmaskrcnn.models.build import build_model

    settings = read_model_settings(path)
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"model {path} is damaged, its weights cannot be read: {error}") from error
    with torch.random.fork_rng(devices=[]):  # building draws random weights; the caller's generator stays put
        model = build_model(settings.model)
    try:
        model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in weights.items()})
    except RuntimeError as error:
        raise ModelFileError(f"the weights in model {path} do not fit its settings: {error}") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.state_dict().values() if p.is_floating_point()):
        raise ModelFileError(f"model {path} is damaged: it holds weights that are not finite")
    return model.eval(), settings

"""A model as a MONAI Bundle: a folder that ``python -m monai.bundle run`` executes on a scan.

    configs/inference.json   the workflow: load, read, segment, write; the command line may override every value
    configs/metadata.json    the metadata that MONAI's specification requires
    models/model.safetensors the unchanged model file, beside it the folder of its 8-bit form if there is one
    docs/README.md, docs/license.txt

The bundle holds no code: this package must be installed where it runs. The specification's ``model.pt`` would be a
pickle; the weights are in a safetensors file instead, which the configuration names.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medmaskrcnn.compression.quantise import copy_eight_bits
from medmaskrcnn.errors import OutputError
from medmaskrcnn.hub.loaded_model import load_as_asked
from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.inference.track_time import read_scan
from medmaskrcnn.settings import ModelFileSettings, OutputOptions, SegmentOptions
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.system.version import __version__

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""The schema of ``metadata.json`` that MONAI's own bundles name."""

_MODEL = "models/model.safetensors"
_RUN = "python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json"


def write_bundle(model: Path, folder: Path) -> list[Path]:
    """Write a model as a MONAI Bundle.

    Args:
        model: A model file.
        folder: The bundle's folder; new or empty.

    Returns:
        The files that were written.

    Raises:
        ModelFileError: if the model cannot be read.
        OutputError: if the folder is not empty or cannot be written.
    """
    network, settings = read_model(model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already; name a new folder for the bundle")
    make_folder(folder / "models")
    target = folder / _MODEL
    if model.suffix == target.suffix:
        shutil.copyfile(model, target)
    else:
        save_model(network, settings, target)
    written = [target, *copy_eight_bits(model, target)]
    texts = {
        "configs/inference.json": _json(inference_config()),
        "configs/metadata.json": _json(metadata(settings)),
        "docs/README.md": _readme(settings),
        "docs/license.txt": f"{settings.card.licence or 'not stated'}\n{settings.card.attribution}".strip() + "\n",
    }
    return written + [write_bytes(folder / name, text.encode()) for name, text in texts.items()]


def inference_config() -> dict[str, Any]:
    """The configuration that ``monai.bundle run`` executes; ``$`` marks Python, ``@`` refers to another entry."""
    return {
        "imports": ["$import medmaskrcnn", "$from pathlib import Path"],
        "bundle_root": ".",
        "model_file": f"$@bundle_root + '/{_MODEL}'",
        "input": "scan.nii.gz",
        "output_dir": "$@bundle_root + '/eval'",
        **AS_THE_MODEL_SAYS.model_dump(mode="json"),
        **OutputOptions().model_dump(mode="json"),
        "options": _made_of_entries(SegmentOptions),
        "output": _made_of_entries(OutputOptions),
        "model": {
            "_target_": f"{load_as_asked.__module__}.load_as_asked",
            "model": "@model_file",
            "options": "@options",
        },
        "network_def": "$@model.network",
        "volume": {"_target_": f"{read_scan.__module__}.read_scan", "path": "$Path(@input)", "options": "@options"},
        "result": "$medmaskrcnn.segment(@volume, model=@model, options=@options)",
        "run": ["$medmaskrcnn.write_result(@result, @volume, @output_dir, options=@output, tracks=@track)"],
    }


def _made_of_entries(kind: type[SegmentOptions | OutputOptions]) -> dict[str, Any]:
    """Options built from the entries of the same names, so that each can be overridden on its own."""
    return {"_target_": f"{kind.__module__}.{kind.__name__}", **{name: f"@{name}" for name in kind.model_fields}}


def metadata(settings: ModelFileSettings) -> dict[str, Any]:
    """The fields of MONAI's bundle specification, from the model's card and settings."""
    card, model = settings.card, settings.model
    names = ", ".join(model.class_names)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: f"written by medmaskrcnn export from the model {card.name}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"medmaskrcnn": __version__, "fire": version_of("fire")},
        "optional_packages_version": {},
        "supported_apps": {},
        "name": card.name,
        "task": f"Instance segmentation: {names}",
        "description": card.summary or f"Finds {names}.",
        "authors": "see the model's card",
        "copyright": card.attribution or card.licence or "not stated",
        "data_source": card.data,
        "data_type": "NIfTI, DICOM, NRRD, MHA, PNG, TIFF",
        "image_classes": f"{model.image_channels} channels, intensities as stored in the scan",
        "label_classes": f"instances of {names}",
        "pred_classes": f"instances of {names}, each with box, mask and score",
        "eval_metrics": dict(card.scores),
        "intended_use": "Research use only, not a medical device",
        "references": ["He et al. 2017, Mask R-CNN, https://arxiv.org/abs/1703.06870"],
        "network_data_format": {"inputs": {"image": _image(settings)}, "outputs": {"pred": _prediction(settings)}},
    }


def version_of(package: str) -> str:
    """The version of a package that may not be installed."""
    try:
        return version(package)
    except ModuleNotFoundError:  # importlib's PackageNotFoundError is one
        return "0"


def _image(settings: ModelFileSettings) -> dict[str, Any]:
    model, pad = settings.model, settings.preprocess.pad_multiple
    return {
        "type": "image",
        "format": "hounsfield" if settings.card.modality == "CT" else "magnitude",
        "modality": settings.card.modality or "n/a",
        "num_channels": model.input_channels,
        "spatial_shape": [f"{n}*{letter}" if n > 1 else "*" for n, letter in zip(pad, "nmk", strict=False)],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": model.spatial_dims == 3,
        "channel_def": {str(i): "image" for i in range(model.input_channels)},
    }


def _prediction(settings: ModelFileSettings) -> dict[str, Any]:
    names = settings.model.class_names
    return {
        "type": "object",
        "format": "instances",
        "num_channels": 1,
        "spatial_shape": ["*"] * 3,
        "dtype": "bool",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": f"one mask per instance of: {', '.join(names)}"},
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"


def _readme(settings: ModelFileSettings) -> str:
    card = settings.card
    extra = ",openvino" if settings.inference.engine == "openvino" else ""
    limits = "\n".join(f"- {limit}" for limit in card.limits)
    scores = "\n".join(f"- {name}: {text}" for name, text in card.scores.items())
    return f"""# {card.name}

{card.summary or "Instance segmentation."} Research use only, not a medical device.

Classes: {", ".join(settings.model.class_names)}.
Data: {card.data or "not stated"}. Licence: {card.licence or "not stated"}.

## Run

    pip install "medmaskrcnn[bundle{extra}]"
    {_RUN} --input SCAN --output_dir RESULT

SCAN is a file (NIfTI, NRRD, MHA, PNG, TIFF, DICOM) or a folder of DICOM. RESULT receives instances.npz, a label map,
tables and a preview. `--device`, `--precision`, `--engine`, `--score` and `--formats "['nifti','csv']"` may be given
too, and every other option of `medmaskrcnn.segment`, `--track True` for one.
Only run bundles that you trust: MONAI evaluates what their configuration says.

The weights lie in `{_MODEL}`, not in a pickle.

## Measured

{scores or "Nothing is stated."}

## Limits

{limits or "None are stated."}
"""

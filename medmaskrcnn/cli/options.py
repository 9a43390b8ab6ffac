"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.cli.failures import failing_as_one
from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.export.write import ALL_FORMATS, FORMATS
from medmaskrcnn.hub.model_file import read_model_settings, resolve_model


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """In what the network computes."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class Engine(StrEnum):
    """What runs the layers of the network."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    TORCH_COMPILE = "torch-compile"


@dataclass(frozen=True)
class Runtime:
    """How a model is to run."""

    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    engine: Engine = Engine.AUTO


DEFAULT_FORMATS = ",".join(FORMATS)

ModelOption = Annotated[
    str, typer.Option(metavar="NAME_OR_FILE", help="A model that ships (medmaskrcnn models), or a .safetensors file.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the network runs.")]
ScoreOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Report instances from this score on.", show_default="the model's own"),
]
ClassesOption = Annotated[
    str | None, typer.Option(metavar="A,B", help="Report these classes alone.", show_default="all")
]
FormatsOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="LIST",
        help=f"What to write beside instances.npz and run.json, out of: {', '.join(ALL_FORMATS)}.",
    ),
]
ResampleOption = Annotated[
    bool,
    typer.Option(
        "--resample-irregular",
        help="Interpolate even slices where a series lacks, repeats or unevenly spaces some; the result says so.",
    ),
]
OutOfDomainOption = Annotated[
    bool, typer.Option("--allow-out-of-domain", help="Run a model on scans that it refuses; the result says so.")
]
LabelMapSegOption = Annotated[
    bool, typer.Option("--label-map-seg", help="DICOM SEG as LABELMAP (small, new) where no two instances overlap.")
]
DeidentifyOption = Annotated[
    bool, typer.Option("--deidentify", help="No name, ID or date in DICOM files, hashed UIDs, no path in run.json.")
]
LogOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write all details, with tracebacks, here.")]


def model_file(model: str) -> Path:
    """The file of a model.

    Raises:
        typer.BadParameter: if there is none.
    """
    try:
        return resolve_model(model)
    except ModelFileError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error


def classes_of(model: str) -> tuple[str, ...]:
    """Names of a model's classes."""
    file = model_file(model)
    with failing_as_one(model):
        return read_model_settings(file).model.class_names


def chosen(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """The comma-separated names in ``text``, each of which must be known.

    Raises:
        typer.BadParameter: if one is not, or none is given.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"there is no {', '.join(unknown)}" if unknown else "no name given"
        raise typer.BadParameter(f"{what}; choose from: {', '.join(known)}", param_hint=option)
    return names

"""``medmaskrcnn export``: a model for other runtimes, as a MONAI Bundle, or in 8 bits beside the model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.cli.console import echo
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.options import LogOption, model_file

EXAMPLES = (
    "medmaskrcnn export my.safetensors --to onnx -o dense.onnx --shape 512,512",
    "medmaskrcnn export my.safetensors --to torch-export -o dense.pt2",
    "medmaskrcnn export my.safetensors --to openvino-int8 --data data/manifest.json",
    "medmaskrcnn export my.safetensors --to monai-bundle -o my-bundle",
)


class Form(StrEnum):
    """What can be written."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    OPENVINO_INT8 = "openvino-int8"
    MONAI_BUNDLE = "monai-bundle"


def export_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model that ships (medmaskrcnn models), or a .safetensors file.")
    ],
    to: Annotated[Form, typer.Option("--to", help="What to write.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="The file to write, of monai-bundle the folder."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="H,W|D,H,W", help="Size of the images.", show_default="512,512, or the model's tile"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="Scans to take ranges from (openvino-int8): those of its training split."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Slices or tiles to take ranges from.")] = 64,
    log: LogOption = None,
) -> None:
    """Write a model in another form.

    onnx and torch-export: backbone, FPN and RPN head as a file for other runtimes, for images of one size, compared
    with torch when it is written.
    monai-bundle: a folder that "python -m monai.bundle run" executes on a scan.
    openvino-int8: the 8-bit form that "segment --engine openvino --precision int8" runs, as a folder beside the model.
    """
    with logging_to(log, hidden=[data] if data else []), failing_as_one(model):
        file = model_file(model)
        if to is Form.OPENVINO_INT8:
            if data is None:
                raise typer.BadParameter(
                    "openvino-int8 takes ranges from your scans: name a manifest", param_hint="--data"
                )
            echo(f"written to {_quantised(file, data, images)}")
            return
        if out is None:
            raise typer.BadParameter("name the file or folder to write", param_hint="--out")
        if to is Form.MONAI_BUNDLE:
            from medmaskrcnn.compression.bundle import write_bundle

            written = write_bundle(file, out)
            echo(f"written to {out}: {', '.join(str(path.relative_to(out)) for path in written)}")
            return
        from medmaskrcnn.compression.export import export_dense  # here: help needs no torch

        error = export_dense(file, to.value, out, shape=_sizes(shape))
        echo(f"written to {out}; differs from torch by at most {error:.1e} of its values")


def _quantised(file: Path, data: Path, images: int) -> Path:
    from medmaskrcnn.compression.quantise import quantise
    from medmaskrcnn.compression.search.calibrate import calibration_images
    from medmaskrcnn.data.manifest import read_manifest
    from medmaskrcnn.hub.model_file import read_model_settings

    return quantise(file, calibration_images(read_manifest(data), read_model_settings(file), images))


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"whole numbers with commas, got {text!r}", param_hint="--shape") from error

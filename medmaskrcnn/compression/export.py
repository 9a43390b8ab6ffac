"""Exports a model's dense part to ONNX or a ``torch.export`` archive, and compares the file's output with torch's.

The later stages depend on the image content and are not exported: proposals, RoIAlign, the heads.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from medmaskrcnn.compression.dense import check_shape, default_shape, random_images, read_dense_part
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.dense_part import DensePart
from medmaskrcnn.system.files import make_folder, replacing

TOLERANCE = 1e-3
"""Largest allowed difference from torch's float32 result, relative to the largest value."""


def export_dense(model: Path, form: str, out: Path, *, shape: Sequence[int] | None = None) -> float:
    """Write the dense part of a model and compare the written file with torch.

    Args:
        model: A model file.
        form: ``onnx`` or ``torch-export``.
        out: The file to write.
        shape: Spatial shape of the images; 512 x 512 or the model's tile by default. It is fixed in the file.

    Returns:
        The largest difference found, relative to the largest value of each output.

    Raises:
        ModelFileError: if the model cannot be read or does not accept such images.
        MedMaskRCNNError: if a package is missing, or the written file computes something else.
        OutputError: if the file cannot be written.
    """
    part, settings = read_dense_part(model)
    images = random_images(default_shape(settings) if shape is None else check_shape(shape, settings))
    write = {"onnx": _write_onnx, "torch-export": _write_archive}[form]
    make_folder(out.parent)
    with torch.no_grad(), replacing(out) as temporary:
        made = write(part, images, temporary)
        error = difference(part(images), made)
        if not error <= TOLERANCE:
            raise MedMaskRCNNError(f"the {form} form differs from torch by {error:.2g} of its values; nothing was kept")
    return error


def output_names(levels: int) -> list[str]:
    """Names of an exported file's outputs, in order: pyramid levels from P2, their objectness, their deltas."""
    return [f"{kind}{level}" for kind in ("p", "objectness", "deltas") for level in range(2, 2 + levels)]


def difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference between outputs of any shape, relative to the largest value of each."""
    pairs = zip(expected, got, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs)


def _write_archive(part: DensePart, images: Tensor, file: Path) -> Sequence[Tensor]:
    with file.open("wb") as stream:
        torch.export.save(torch.export.export(part, (images,)), stream)
    with file.open("rb") as stream:
        made: Sequence[Tensor] = torch.export.load(stream).module()(images)
    return made


def _write_onnx(part: DensePart, images: Tensor, file: Path) -> Sequence[Tensor]:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MedMaskRCNNError(f'ONNX needs {", ".join(missing)}: pip install "medmaskrcnn[onnx]"')
    import onnxruntime

    names = output_names(len(part(images)) // 3)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter prints its steps
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part, (images,), file, input_names=["images"], output_names=names, dynamo=True, external_data=False
        )
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(a) for a in session.run(None, {"images": images.numpy()})]

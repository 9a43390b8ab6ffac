"""A model's dense part for other runtimes: ONNX, or an archive of ``torch.export``; compared with torch when written.

What follows depends on what is in the image and stays with this package: proposals, RoIAlign, the heads.
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
"""Largest difference from torch's float32 result that a written form may have, as a share of the largest value."""


def export_dense(model: Path, form: str, out: Path, *, shape: Sequence[int] | None = None) -> float:
    """Write the dense part of a model and compare what was written with torch.

    Args:
        model: A model file.
        form: ``onnx`` or ``torch-export``.
        out: The file to write.
        shape: Spatial shape of the images; 512 x 512 or the model's tile by default. A written form has one shape.

    Returns:
        The largest difference found, as a share of the largest value of each output.

    Raises:
        ModelFileError: if the model cannot be read or takes no such images.
        MedMaskRCNNError: if a package is missing, or what was written computes something else.
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
    """Names of what a written form gives, in order: pyramid levels from P2, their objectness, their deltas."""
    return [f"{kind}{level}" for kind in ("p", "objectness", "deltas") for level in range(2, 2 + levels)]


def difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of outputs, of any shape, as a share of the largest value of each."""
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
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part, (images,), file, input_names=["images"], output_names=names, dynamo=True, external_data=False
        )
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(a) for a in session.run(None, {"images": images.numpy()})]

"""A model's dense part in 8 bits: post-training quantisation (NNCF) with a few of the user's own scans.

Ranges of the activations are taken from the scans, weights are rounded channel by channel, biases corrected. The
8-bit form lies beside the model file, whose heads it is used with; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from medmaskrcnn.deploy.dense import read_dense_part
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.model_file import model_sha256
from medmaskrcnn.runtime.openvino_engine import converted, quantised_form


def quantise(model: Path, images: Iterable[Tensor], *, out: Path | None = None) -> Path:
    """Make the 8-bit form of a model that engine ``openvino`` runs with precision ``int8``.

    Args:
        model: A model file.
        images: Each ``(1, C, *spatial)`` float32, as the network is given them; some dozens.
        out: The model file beside which the form is to lie, if it is not ``model`` but a copy of it.

    Returns:
        The ``.xml`` file; its weights lie beside it in a ``.bin``.

    Raises:
        MedMaskRCNNError: if NNCF or OpenVINO are not installed, or there is no image.
        ModelFileError: if the model cannot be read.
    """
    missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if missing:
        raise MedMaskRCNNError(f'quantising needs {" and ".join(missing)}: pip install "medmaskrcnn[openvino]"')
    import nncf
    import openvino

    samples = [image.numpy() for image in images]
    if not samples:
        raise MedMaskRCNNError("quantising needs at least one image to take ranges from")
    part, _ = read_dense_part(model)
    small = nncf.quantize(
        converted(part, samples[0].shape),
        nncf.Dataset(samples),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,  # activations may be negative: GroupNorm comes before ReLU
    )
    target = quantised_form(out or model, model_sha256(model))
    openvino.save_model(small, target, compress_to_fp16=False)
    return target

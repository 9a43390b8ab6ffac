"""Post-training quantisation of a model to 8 bits (NNCF), calibrated on a few of the user's own scans.

Activation ranges are estimated on the scans: backbone, FPN and RPN head receive the images, the heads receive the
regions that the float32 network pools from them. Weights are quantised per channel and biases corrected; the last
layers of the heads stay as they are. The 8-bit form is stored beside the model file; nothing is trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.compression.dense import spread
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.hub.model_file import model_sha256, read_model
from medmaskrcnn.models.inference_backend import quantised_folder, quantised_forms
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime.openvino_engine import converted, imported_openvino
from medmaskrcnn.system.files import replacing_folder

_NUMBERS = 1 << 19  # values of an image's regions kept for a head: 40 regions of 256 x 7 x 7, 10 of 256 x 14 x 14
_BEST_PROPOSALS = 10  # used in place of detections where there are none
_LAYERS = ("MatMul", "Convolution", "ConvolutionBackpropData")


def quantise(model: Path, images: Iterable[Tensor]) -> Path:
    """Make the 8-bit form of a model that engine ``openvino`` runs with precision ``int8``.

    Args:
        model: A model file.
        images: Each ``(1, C, *spatial)`` float32, as the network receives them; a few dozen.

    Returns:
        The folder of the 8-bit form.

    Raises:
        MedMaskRCNNError: if NNCF or OpenVINO is not installed, or there are no images to calibrate on.
        ModelFileError: if the model cannot be read.
        OutputError: if the 8-bit form cannot be written.
    """
    network, _ = read_model(model)
    return quantise_network(network.eval(), images, quantised_folder(model, model_sha256(model)))


def quantise_network(network: MaskRCNN, images: Iterable[Tensor], folder: Path) -> Path:
    """Write the 8-bit forms of a network's parts to a folder, which is complete or absent.

    Args:
        network: In float32 on the CPU, run by torch.
        images: Each ``(1, C, *spatial)`` float32, as the network receives them.
        folder: Replaced if it exists.

    Returns:
        The folder.
    """
    missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if missing:
        raise MedMaskRCNNError(f'quantising needs {" and ".join(missing)}: pip install "medmaskrcnn[openvino]"')
    openvino = imported_openvino()
    parts, samples = network.parts(), _inputs_of_parts(network, images)
    with replacing_folder(folder) as temporary:
        for part, form in quantised_forms(temporary, parts).items():
            small = _quantised(parts[part], samples[part], keep_last=part != "dense")
            openvino.save_model(small, form, compress_to_fp16=False)
    return folder


def copy_eight_bits(model: Path, target: Path) -> list[Path]:
    """Copy the 8-bit form of a model, if it has one, to the place of another model file's 8-bit form.

    Returns:
        The files that were written.

    Raises:
        OutputError: if one cannot be written.
    """
    source, folder = (quantised_folder(file, model_sha256(file)) for file in (model, target))
    if not source.is_dir():
        return []
    with replacing_folder(folder) as temporary:
        names = [Path(shutil.copyfile(file, temporary / file.name)).name for file in sorted(source.iterdir())]
    return [folder / name for name in names]


def _quantised(module: nn.Module, samples: Sequence[Tensor], *, keep_last: bool) -> Any:
    import nncf

    model = converted(module, samples[0].shape)
    return nncf.quantize(
        model,
        nncf.Dataset([sample.numpy() for sample in samples]),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,  # activations may be negative: GroupNorm comes before ReLU
        ignored_scope=nncf.IgnoredScope(names=_last_layers(model) if keep_last else []),
    )


def _last_layers(model: Any) -> list[str]:
    """Names of the last layers with weights, one for each output."""
    found = []
    for result in model.get_results():
        node = result
        while node.get_type_name() not in _LAYERS:
            node = node.input_value(0).get_node()
        found.append(node.get_friendly_name())
    return found


def _inputs_of_parts(network: MaskRCNN, images: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    """Inputs of each part while the network runs on images; for the heads, a selection of each image's regions."""
    samples: dict[str, list[Tensor]] = {"dense": [], "box_head": [], "mask_head": []}
    for image in images:
        samples["dense"].append(image)
        made: dict[str, Any] = {}
        with _inputs(network.box_head) as regions, _inputs(network.mask_head) as outlined:
            network.detect(image, watch=made.__setitem__)
            if network.mask_head is not None and not outlined:
                best = made["proposals"][0][:_BEST_PROPOSALS]
                network.outline(image, [best], [torch.zeros(len(best), dtype=torch.int64)])
        samples["box_head"] += _some_rows(regions)
        samples["mask_head"] += _some_rows(outlined)
    if not samples["box_head"]:
        raise MedMaskRCNNError("quantising needs at least one image with a proposal to take ranges from")
    return samples


@contextmanager
def _inputs(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Record the inputs of a module within this context."""
    given: list[Tensor] = []
    with ExitStack() as hooks:
        if module is not None:
            hook = module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
            hooks.callback(hook.remove)
        yield given


def _some_rows(batches: Sequence[Tensor]) -> list[Tensor]:
    """Some rows of all batches, evenly spaced from first to last, as one batch; empty if there are none."""
    rows = sum(len(batch) for batch in batches)
    if not rows:
        return []
    most = max(1, _NUMBERS // batches[0][0].numel())
    return [torch.cat(list(batches))[spread(range(rows), most)].contiguous()]

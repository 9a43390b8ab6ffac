"""How fast a 2D ResNet-50 FPN finds objects on this machine, beside torchvision, on the same weights.

    python benchmarks/speed.py --json benchmarks/results/speed.json
    python benchmarks/speed.py --backbones resnet18 --engines torch --repeats 5
    python benchmarks/speed.py --weights maskrcnn_resnet50_fpn_coco.pth --image street.jpg --backbones resnet50

One image, every network in one process and in turn, so that what else the machine does hits all; the median counts, and
ratios are taken turn by turn. Peers: torchvision's ``maskrcnn_resnet50_fpn`` in fp32 as it comes, and under bf16
autocast with channels last. Ours has the peer's weights (ResNet-50), the same number of proposals and detections; a
smaller number of proposals is a row of its own. The engine openvino runs in 8 bits too, where NNCF is installed; ranges
are then taken from the image and from noise, and from what the network makes of them.

Freed memory stays with the process for all of them, as it does in ``segment``; without that the peers are slower.

From the image tensor to boxes, scores and small masks; neither resizes the image nor pastes masks. Before anything is
timed both must find the same objects in fp32. Random weights show speed alone. With trained ones (``--weights``, a
state dict of torchvision's detector, and ``--image``) the table tells too how many of the objects that torchvision
finds in fp32 with a score of 0.5 or more each row finds again, with the same class and a box of IoU 0.8 or more.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.ops import box_iou
from torchvision.transforms.functional import center_crop, resize
from torchvision_peer import TorchvisionPeer

from medmaskrcnn.compression.dense import random_images
from medmaskrcnn.compression.quantise import quantise_network
from medmaskrcnn.hub.torchvision_model import convert_torchvision, torchvision_classes, torchvision_settings
from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.inference_backend import InferenceBackend, compile_parts, quantised_forms
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.runtime.precision import choose_precision
from medmaskrcnn.settings import BackboneSettings
from medmaskrcnn.system.memory import allow_retaining, retain_freed_memory
from medmaskrcnn.training.plan import read_plan

_PER_IMAGE = 100
_SAME_VOX = 0.05
_FP32, _BF16 = "torchvision fp32", "torchvision bf16, channels last"
_CERTAIN, _SAME_IOU = 0.5, 0.8
_PRECISIONS = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8")}
_CALIBRATION = 8  # images
Call = Callable[[], list[Detections]]


def check_same(theirs: TorchvisionPeer, own: MaskRCNN, image: Tensor) -> None:
    """Time nothing unless both do the same work: in float32 they must find the same objects."""
    (a,), (b,) = theirs.detect(image), own.detect(image)
    if len(a.boxes) != len(b.boxes) or not len(a.boxes) or float((a.boxes - b.boxes).abs().max()) > _SAME_VOX:
        raise SystemExit(
            f"the peer finds {len(a.boxes)} objects, ours {len(b.boxes)}, or elsewhere: no fair comparison"
        )


def ours(theirs: TorchvisionPeer, backbone: str) -> MaskRCNN:
    """Our network: with the peer's weights if it is a ResNet-50, else random."""
    settings = torchvision_settings(torchvision_classes(outputs(theirs)), norm_eps=1e-5)
    if backbone == "resnet50":
        return convert_torchvision(theirs.network.state_dict(), settings).eval()
    changed = BackboneSettings(**{**settings.model.backbone.model_dump(), "name": backbone})
    return build_model(settings.model.model_copy(update={"backbone": changed})).eval()


def outputs(theirs: TorchvisionPeer) -> int:
    """Classes of the peer, background among them."""
    return int(theirs.network.roi_heads.box_predictor.cls_score.out_features)


def peer(weights: Path | None) -> TorchvisionPeer:
    """torchvision's network: with random weights of one class, or those of a file."""
    torch.manual_seed(0)
    if weights is None:
        return TorchvisionPeer(("a",), detections_per_img=_PER_IMAGE).eval()
    state = torch.load(weights, map_location="cpu", weights_only=True)
    classes = torchvision_classes(len(state["roi_heads.box_predictor.cls_score.bias"]))
    theirs = TorchvisionPeer(classes, detections_per_img=_PER_IMAGE).eval()
    theirs.network.load_state_dict(state)
    return theirs


def compiled(network: MaskRCNN, precision: str, name: str, image: Tensor, folder: Path) -> InferenceBackend:
    """The layers by OpenVINO; in 8 bits with ranges from the image and noise."""
    parts = network.parts()
    if precision != "int8":
        return compile_parts(parts, precision=precision, name=name, folder=folder)
    samples = [image, *(random_images(image.shape) for _ in range(_CALIBRATION - 1))]
    forms = quantised_forms(quantise_network(network, samples, folder / name), parts)
    rest = choose_precision("auto", image.device)
    return compile_parts(parts, precision=rest, name=name, quantised=forms, folder=folder)


def calls(image: Tensor, options: argparse.Namespace, folder: Path) -> dict[str, Call]:
    """Every network as a call that finds the objects of the image."""
    theirs = peer(options.weights)
    check_same(theirs, ours(theirs, "resnet50"), image)
    half = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = image.contiguous(memory_format=torch.channels_last)

    def autocast() -> list[Detections]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return half.detect(last)

    found: dict[str, Call] = {_FP32: lambda: theirs.detect(image), _BF16: autocast}
    for backbone in options.backbones:
        for engine in options.engines:
            for precision in (p for p in _PRECISIONS[engine] if p in options.precisions):
                network = ours(theirs, backbone)
                if engine == "openvino":
                    network.compiled = compiled(network, precision, backbone, image, folder)
                rest = "auto" if precision == "int8" else precision
                network.run_in(choose_precision(rest, image.device))
                for proposals in options.proposals:
                    name = f"medmaskrcnn {backbone} {engine} {precision}, {proposals} proposals"
                    found[name] = lambda n=network, p=proposals: n.detect(image, post_nms_top_n=p)  # type: ignore[misc]
    return found


def in_turn(what: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call after one warm-up, the calls taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in what}
    for turn in range(repeats + 1):
        for name, call in what.items():
            began = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def found_again(reference: Detections, got: Detections) -> str:
    """How many of the certain objects of a reference are found again."""
    certain = reference.scores >= _CERTAIN
    alike = box_iou(reference.boxes[certain], got.boxes) >= _SAME_IOU
    same = alike & (reference.labels[certain][:, None] == got.labels) & (got.scores >= _CERTAIN)
    return f"{int(same.any(dim=1).sum())} of {int(certain.sum())}"


def picture(file: Path | None, side: int, *, plan: str | None) -> Tensor:
    """The image ``(1, 3, side, side)``: noise, or a picture's middle, prepared as ``plan`` says or torchvision does."""
    if file is None:
        return torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))
    if plan is not None:
        prepared = prepare(read_volume(file), read_plan(plan).preprocess).tensor[:, 0]
        return center_crop(prepared, [side, side]).expand(3, -1, -1)[None].contiguous()
    colours = read_image(str(file), ImageReadMode.RGB).float() / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    cut = center_crop(resize(colours, [side], antialias=True), [side, side])
    return ((cut - mean[:, None, None]) / std[:, None, None])[None]


def rows(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median time of each, and how many times as fast it is as each peer."""
    return [
        {
            "what": name,
            "seconds": round(statistics.median(own), 4),
            "all_seconds": [round(s, 4) for s in own],
            **{f"times {base}": round(statistics.median(b / o for b, o in zip(seconds[base], own, strict=True)), 3)
               for base in (_FP32, _BF16)},
        }
        for name, own in seconds.items()
    ]  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    more = "found again" in results[0]
    lines = [f"| network | s | times {_FP32} | times {_BF16} |{' found again |' if more else ''}"]
    lines.append("|---|---:|---:|---:|" + ("---:|" if more else ""))
    for row in results:
        line = f"| {row['what']} | {row['seconds']:.3f} | {row[f'times {_FP32}']} | {row[f'times {_BF16}']} |"
        lines.append(line + (f" {row.get('found again', '-')} |" if more else ""))
    return "\n".join(lines)


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures are of."""
    return {
        **machine("torchvision", *(["openvino", "nncf"] if "openvino" in options.engines else [])),
        "side": options.side,
        "weights": "random" if options.weights is None else options.weights.name,
        "image": "noise" if options.image is None else options.image.name,
        "threads": options.threads,
    }


def main() -> None:
    """Measure, print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels, a multiple of 32")
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet18"])
    parser.add_argument("--engines", nargs="+", choices=("torch", "openvino"), default=["torch", "openvino"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--weights", type=Path, help="a state dict of torchvision's detector; random by default")
    parser.add_argument("--image", type=Path, help="a picture; noise by default")
    parser.add_argument("--plan", help="prepare the picture by this plan, as peer_nuclei.py trains")
    parser.add_argument("--proposals", nargs="+", type=int, default=[1000, 100])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    allow_retaining()
    torch.set_num_threads(options.threads)
    image = picture(options.image, options.side, plan=options.plan)
    before = conditions(options)
    with tempfile.TemporaryDirectory() as folder:
        networks = calls(image, options, Path(folder))
        with retain_freed_memory():
            results = rows(in_turn(networks, options.repeats))
        if options.weights is not None:
            (reference,) = networks[_FP32]()
            for row in (row for row in results if "resnet18" not in row["what"]):
                row["found again"] = found_again(reference, networks[row["what"]]()[0])
    print(table(results))
    if options.json:
        document = {**before, "results": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

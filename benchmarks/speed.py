"""How fast a 2D ResNet-50 FPN finds objects on this machine, beside torchvision, on the same weights.

    python benchmarks/speed.py --json benchmarks/results/speed.json
    python benchmarks/speed.py --backbones resnet18 --engines torch --repeats 5

One image, random weights, every network in one process and in turn, so that what else the machine does hits all; the
median counts, and ratios are taken turn by turn. Peers: torchvision's ``maskrcnn_resnet50_fpn`` in fp32 as it comes,
and under bf16 autocast with channels last. Ours has the peer's weights (ResNet-50), the same number of proposals and
detections; a smaller number of proposals is a row of its own.

From the image tensor to boxes, scores and small masks; neither resizes the image nor pastes masks. Before anything is
timed both must find the same objects in fp32. Random weights show speed alone; agreement in bf16 and AP belong
to trained weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision_peer import TorchvisionPeer

from medmaskrcnn.config import BackboneSettings
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.dense_part import DensePart
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.weights import convert_torchvision, torchvision_settings
from medmaskrcnn.runtime.openvino_engine import OpenVINOProgram
from medmaskrcnn.runtime.precision import processor_features

_CLASSES = ("a",)
_PER_IMAGE = 100
_SAME_VOX = 0.05
_FP32, _BF16 = "torchvision fp32", "torchvision bf16, channels last"
Call = Callable[[], object]


def check_same(theirs: TorchvisionPeer, own: MaskRCNN, image: Tensor) -> None:
    """Time nothing unless both do the same work: in float32 they must find the same objects."""
    (a,), (b,) = theirs.detect(image), own.detect(image)
    if len(a.boxes) != len(b.boxes) or not len(a.boxes) or float((a.boxes - b.boxes).abs().max()) > _SAME_VOX:
        raise SystemExit(
            f"the peer finds {len(a.boxes)} objects, ours {len(b.boxes)}, or elsewhere: no fair comparison"
        )


def ours(theirs: TorchvisionPeer, backbone: str) -> MaskRCNN:
    """Our network: with the peer's weights if it is a ResNet-50, else random."""
    settings = torchvision_settings(_CLASSES, norm_eps=1e-5)
    if backbone == "resnet50":
        return convert_torchvision(theirs.network.state_dict(), settings).eval()
    changed = BackboneSettings(**{**settings.model.backbone.model_dump(), "name": backbone})
    return build_model(settings.model.model_copy(update={"backbone": changed})).eval()


def calls(image: Tensor, options: argparse.Namespace, folder: Path) -> dict[str, Call]:
    """Every network as a call that finds the objects of the image."""
    torch.manual_seed(0)
    theirs = TorchvisionPeer(_CLASSES, per_image=_PER_IMAGE).eval()
    check_same(theirs, ours(theirs, "resnet50"), image)
    half = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = image.contiguous(memory_format=torch.channels_last)

    def autocast() -> object:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return half.detect(last)

    found: dict[str, Call] = {_FP32: lambda: theirs.detect(image), _BF16: autocast}
    for backbone in options.backbones:
        for engine in options.engines:
            for precision in ("fp32", "bf16"):
                network = ours(theirs, backbone)
                if engine == "openvino":
                    part = DensePart(network.pyramid, network.rpn_head).eval()
                    network.compiled = OpenVINOProgram(part, precision=precision, name=backbone, folder=folder)
                network.run_in(precision)  # type: ignore[arg-type]
                for proposals in options.proposals:
                    name = f"medmaskrcnn {backbone} {engine} {precision}, {proposals} proposals"
                    found[name] = lambda n=network, p=proposals: n.detect(image, proposals=p)  # type: ignore[misc]
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
    lines = [f"| network | s | times {_FP32} | times {_BF16} |", "|---|---:|---:|---:|"]
    for row in results:
        lines.append(f"| {row['what']} | {row['seconds']:.3f} | {row[f'times {_FP32}']} | {row[f'times {_BF16}']} |")
    return "\n".join(lines)


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, commit."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": head.stdout.strip() or None,
        "side": options.side,
        "threads": options.threads,
        "processor": processor_features().get("cpu_name", platform.machine()),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "load_average": Path("/proc/loadavg").read_text().split()[:3] if Path("/proc/loadavg").exists() else None,
    }


def main() -> None:
    """Measure, print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels, a multiple of 32")
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet18"])
    parser.add_argument("--engines", nargs="+", choices=("torch", "openvino"), default=["torch", "openvino"])
    parser.add_argument("--proposals", nargs="+", type=int, default=[1000, 100])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = torch.rand((1, 3, options.side, options.side), generator=torch.Generator().manual_seed(0))
    before = conditions(options)
    with tempfile.TemporaryDirectory() as folder:
        results = rows(in_turn(calls(image, options, Path(folder)), options.repeats))
    print(table(results))
    if options.json:
        document = {**before, "results": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

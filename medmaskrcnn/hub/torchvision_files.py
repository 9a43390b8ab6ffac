"""Location of torchvision's weights: their names, torch hub's cache, the checksum in a file's name.

``torchvision:NAME`` means the file of that name in the cache, ``torchvision:NAME:PATH`` a file elsewhere,
``torchvision:PATH`` the same for Mask R-CNN, and ``torchvision:NAME:download`` lets torch hub download the file if it
is not there. Nothing is downloaded without that word, and torch is imported only for a download.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from medmaskrcnn.errors import ModelFileError

PREFIX = "torchvision:"
SUFFIXES = (".pth", ".pt")
_SITE = "https://download.pytorch.org/models/"
_FILES = {
    "maskrcnn_resnet50_fpn": ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",),
    "maskrcnn_resnet50_fpn_v2": ("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",),  # first weights only
    "resnet18": ("resnet18-f37072fd.pth",),
    "resnet34": ("resnet34-b627a593.pth",),
    "resnet50": ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),  # IMAGENET1K_V1 and V2
    "resnet101": ("resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"),
}
_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")  # torch hub's convention: first digits of the file's SHA-256
_DOWNLOAD = "download"

COCO_V1_HASH = "bf2d0c1e"

_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, "
    "-, -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, "
    "dining table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
)
COCO_CLASSES = tuple(
    f"unused {number}" if name == "-" else name for number, name in enumerate(_COCO.split(", "), start=1)
)
"""COCO's categories by category ID 1..90; ten IDs are unused, but the network has outputs for them."""


def torchvision_file(reference: str) -> Path:
    """The file that ``torchvision:...`` refers to.

    Raises:
        ModelFileError: if the file is missing (the message says where to put it), if torchvision has no such weights,
            or if they cannot be downloaded.
    """
    wanted = reference.removeprefix(PREFIX)
    name, _, place = wanted.partition(":")
    if name not in _FILES:
        return _existing(Path(wanted), wanted)
    if place and place != _DOWNLOAD:
        return _existing(Path(place), wanted)
    folder = _cache_folder()
    found = [folder / file for file in _FILES[name] if (folder / file).is_file()]
    if found:
        return found[0]
    url = _SITE + _FILES[name][0]
    if place:
        return _fetch(url, folder / _FILES[name][0])
    raise ModelFileError(
        f"{_FILES[name][0]} is not in {folder}: get it from {url} and put it there, or name its place as "
        f"{PREFIX}{name}:PATH, or let it be fetched by {PREFIX}{name}:{_DOWNLOAD}"
    )


def check_hash(path: Path) -> None:
    """Check a file against the checksum in its name, if there is one.

    Raises:
        ModelFileError: if they differ, or the file cannot be read.
    """
    expected = _HASH.search(path.name)
    if expected is None:
        return
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if not digest.startswith(expected[1]):
        raise ModelFileError(
            f"{path} is damaged: by its name its SHA-256 begins with {expected[1]}, got {digest[: len(expected[1])]}; "
            "get the file again"
        )


def _existing(path: Path, wanted: str) -> Path:
    if path.is_file():
        return path
    reason = "no such file" if path.suffix in SUFFIXES else f"the names are: {', '.join(_FILES)}"
    raise ModelFileError(f"torchvision's weights {wanted!r} cannot be used: {reason}")


def _cache_folder() -> Path:
    """Torch hub's folder of weights, located as torch does."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", str(Path(base) / "torch"))).expanduser() / "hub" / "checkpoints"


def _fetch(url: str, path: Path) -> Path:
    from torch.hub import download_url_to_file

    found = _HASH.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(path), found[1] if found else None, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no space, wrong checksum
        raise ModelFileError(f"cannot fetch {url}: {error}; get it by other means and put it at {path}") from error
    return path

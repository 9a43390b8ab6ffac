"""Converts any supported labelled data to a manifest: the format is detected, and assumptions are reported.

``medmaskrcnn train`` calls this when it is given something other than a manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn_datasets.assemble import CountProgress
from medmaskrcnn_datasets.coco import coco_dataset, is_coco
from medmaskrcnn_datasets.dicom_labels import dicom_dataset
from medmaskrcnn_datasets.folders import (
    image_and_mask_folders,
    instances_dataset,
    is_folder_per_image,
    semantic_dataset,
)
from medmaskrcnn_datasets.label_files import classes_that_occur
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.nnunet import nnunet_dataset
from medmaskrcnn_datasets.splits import SplitRule

Format = Literal["manifest", "msd", "nnunet", "coco", "instances", "semantic", "dicom"]
OnEvent = Callable[[str], None]

DEFAULT_SPLITS = SplitRule(test_share=0.2, val_share=0.1)

_LOG = logging.getLogger(__name__)
_LOOKED_AT = 200  # at most this many files of a folder are tested for DICOM
_PICTURES = ("PNG", "TIFF", "JPEG")


def detect_format(path: Path | str) -> Format | None:
    """The format of a file or folder; ``"manifest"`` if no adapter is needed, ``None`` if none can read it.

    Raises:
        ReadError: if it does not exist.
    """
    source = Path(path)
    if not source.exists():
        raise ReadError(f"{source} does not exist. Check the spelling")
    if source.is_file():
        return _format_of_file(source)
    if (source / "manifest.json").is_file():
        return "manifest"
    if (source / "dataset.json").is_file():
        return _format_of_file(source / "dataset.json")
    if _coco_file(source) is not None:
        return "coco"
    if is_folder_per_image(source):
        return "instances"
    try:
        images, masks = image_and_mask_folders(source)
    except ReadError:
        return "dicom" if any(sniff(file) == "DICOM" for file in _first_files(source)) else None
    first = next((file for file in sorted(images.iterdir()) if file.is_file()), None)
    pictures = first is not None and sniff(first) in _PICTURES
    return "instances" if pictures or masks.name in ("masks", "instances") else "semantic"


def to_manifest(
    path: Path | str,
    out_dir: Path | str,
    *,
    splits: SplitRule = DEFAULT_SPLITS,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for the labelled data at a path, with the defaults of its adapter.

    Args:
        path: A manifest (returned unchanged), a data set in MSD or nnU-Net layout, a COCO JSON, a folder of images
            with masks or labels, or a folder of DICOM with RTSTRUCT or SEG.
        out_dir: Gets the manifest and converted files. An earlier conversion of the same files, by their names, sizes
            and times, is reused.
        splits: Patients for validation and testing.
        on_event: Called with each assumption; by default they are logged.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError: if nothing there can be converted to a manifest, or part of it cannot be read.
        OutputError: if ``out_dir`` cannot be written.
    """
    source = Path(path).resolve()
    on_event = on_event or _LOG.info
    kind = detect_format(source)
    if kind is None:
        raise ReadError(
            f"{source} is no labelled data set that can be recognised. Wanted: a manifest.json, a data set in MSD or "
            "nnU-Net layout, a COCO JSON, images/ with masks/ or labels/, or DICOM with RTSTRUCT or SEG. "
            "See python -m medmaskrcnn_datasets --help"
        )
    if kind == "manifest":
        return source / "manifest.json" if source.is_dir() else source
    target = make_folder(out_dir)
    state = {"source": str(source), "format": kind, "splits": repr(splits), "files": _state_of(source, target)}
    record = target / "converted_from.json"
    manifest = target / "manifest.json"
    if manifest.is_file() and record.is_file() and _json(record) == state:
        on_event(f"{source} was converted before, to {manifest}")
        return manifest
    on_event(f"{source} is taken for {_WORDS[kind]}")
    on_event(f"patients are dealt into splits by name: {splits.test_share:.0%} test, {splits.val_share:.0%} validation")
    made = _converted(kind, source, target, splits, on_event, progress)
    write_bytes(record, json.dumps(state, indent=1).encode())
    return made


_WORDS: dict[Format, str] = {
    "manifest": "a manifest",
    "msd": "a data set in MSD layout; each label value in a case is one object",
    "nnunet": "a data set in nnU-Net's raw layout; each label value in a case is one object",
    "coco": "a COCO file; each annotation is one object, each picture a patient of its own",
    "instances": "images with instance masks; each number in a mask, or each mask file, is one object",
    "semantic": "images with maps of classes; each connected part of a class is one object",
    "dicom": "DICOM with RTSTRUCT or SEG; each region or segment is one object",
}


def _converted(
    kind: Format, source: Path, target: Path, splits: SplitRule, on_event: OnEvent, progress: CountProgress | None
) -> Path:
    folder = source.parent if source.name == "dataset.json" else source
    if kind == "msd":
        return msd_dataset(folder, target, splits=splits, progress=progress)
    if kind == "nnunet":
        return nnunet_dataset(folder, target, splits=splits, progress=progress)
    if kind == "coco":
        return coco_dataset(_coco_file(source) or source, target, splits=splits, progress=progress)
    if kind == "dicom":
        return dicom_dataset(source, target, splits=splits, progress=progress)
    if kind == "instances":
        on_event("the objects' class is called 'object'")
        return instances_dataset(source, target, splits=splits, progress=progress)
    values = classes_that_occur(image_and_mask_folders(source)[1])
    classes = {value: f"label {value}" for value in values}
    on_event(f"nothing says what the label values mean; the classes are called {', '.join(classes.values())}")
    return semantic_dataset(source, target, classes=classes, splits=splits, progress=progress)


def _format_of_file(path: Path) -> Format | None:
    content = _json(path)
    if not isinstance(content, dict):
        return None
    if "cases" in content and "class_names" in content:
        return "manifest"
    if is_coco(content):
        return "coco"
    if path.name != "dataset.json" or "labels" not in content:
        return None
    training = content.get("training")
    first = training[0] if isinstance(training, list) and training else None
    image = str(first.get("image", "")) if isinstance(first, dict) else ""
    if image and "channel_names" not in content and (path.parent / image).is_file():
        return "msd"
    if "channel_names" in content or any((path.parent / "imagesTr").glob("*_0000.*")):
        return "nnunet"
    return "msd" if image else None


def _coco_file(source: Path) -> Path | None:
    """The only COCO file in a folder or its ``annotations/``."""
    if source.is_file():
        return source
    files = [file for folder in (source, source / "annotations") for file in sorted(folder.glob("*.json"))]
    found = [file for file in files if is_coco(_json(file))]
    return found[0] if len(found) == 1 else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _first_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield Path(place) / name
            seen += 1
            if seen == _LOOKED_AT:
                return


def _state_of(source: Path, target: Path) -> str:
    """A digest of the names, sizes and times of all files that a conversion may read."""
    folder = source if source.is_dir() else source.parent
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if Path(place) / name != target)
        for name in sorted(files):
            found = os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118 - one of perhaps a million files
            digest.update(f"{place}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()

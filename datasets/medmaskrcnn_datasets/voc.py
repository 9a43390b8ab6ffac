"""Pascal VOC: which class each object of ``SegmentationObject`` has, from ``SegmentationClass`` beside it.

``class_names.txt`` (labelme) or ``labelmap.txt`` (CVAT, Datumaro) name the numbers of classes; they are VOC's own where
the boxes in ``Annotations`` are of VOC's classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medmaskrcnn.data.case_labels import values_in
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.assemble import LabelFiles
from medmaskrcnn_datasets.label_files import read_label_map
from medmaskrcnn_datasets.layouts import Pair
from medmaskrcnn_datasets.source_files import files_in, folders_in, scans_in, some, stem_of

VOID = 255
"""Number of voxels without a class: borders, and what is too difficult."""

_OBJECTS, _CLASSES = "segmentationobject", "segmentationclass"
_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BOXED = re.compile(r"<object>\s*<name>\s*([^<]+?)\s*</name>")
_LOOKED_AT = 200  # files of boxes


def class_maps(pairs: Sequence[Pair]) -> dict[str, Path]:
    """The map of classes of each case by its id; empty if the label maps have none beside them.

    Raises:
        ReadError: if only some have one.
    """
    folders: dict[Path, dict[str, Path]] = {}
    found = {}
    for pair in pairs:
        folder = pair.label.parent
        if folder not in folders:
            is_voc = folder.name.lower() == _OBJECTS
            beside = [one for one in (folders_in(folder.parent) if is_voc else []) if one.name.lower() == _CLASSES]
            folders[folder] = {stem_of(file): file for one in beside for file in scans_in(one)}
        if stem_of(pair.label) in folders[folder]:
            found[pair.id] = folders[folder][stem_of(pair.label)]
    alone = [pair.label.name for pair in pairs if pair.id not in found] if found else []
    if alone:
        raise ReadError(
            f"{len(alone)} maps of SegmentationObject have none of classes in SegmentationClass: {some(alone)}. "
            "Add them, or take these pictures out"
        )
    return found


def voc_class_names(root: Path) -> dict[int, str]:
    """Names of the numbers in the maps of classes, as the data set has them; empty if it does not tell."""
    labelme, datumaro = root / "class_names.txt", root / "labelmap.txt"
    if labelme.is_file():
        names = [name for name in _lines(labelme) if name != "__ignore__"]
    elif datumaro.is_file():
        names = [line.split(":")[0].strip() for line in _lines(datumaro) if not line.startswith("#")]
    else:
        return dict(enumerate(_NAMES, start=1)) if _is_of_voc(root / "Annotations") else {}
    with_background = bool(names) and names[0].strip("_ ").casefold() == "background"
    return dict(enumerate(names[1:] if with_background else names, start=1))


def object_classes_converter(
    pair: Pair, class_map: Path, names: Mapping[int, str], ignore: Sequence[int]
) -> Callable[[Path], LabelFiles]:
    """A function that gives each object of a case the class that most of its voxels have.

    Args:
        pair: The case; each number of its label map is an object.
        class_map: Its map of classes.
        names: Class of each number in it; an empty name leaves the class out.
        ignore: Numbers of the label map whose voxels are to be ignored.
    """

    def convert(_: Path) -> LabelFiles:
        values, _grid = read_label_map(pair.id, pair.image, pair.label)
        classes, _grid = read_label_map(pair.id, pair.image, class_map)
        instances = []
        for value in values_in(values):
            if value in ignore:
                instances.append(ManifestInstance(value=value, ignore=True))
                continue
            own = classes[(values == value) & (classes != 0) & (classes != VOID)]
            number = int(np.bincount(own).argmax()) if own.size else 0
            if number not in names:
                what = f"the class {number}, which nothing names" if number else "no class"
                raise ReadError(f"case {pair.id!r}: object {value} of {pair.label.name} has {what} in {class_map}")
            if names[number]:
                instances.append(ManifestInstance(value=value, class_name=names[number]))
        return (pair.label,), tuple(instances)

    return convert


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _is_of_voc(annotations: Path) -> bool:
    """Whether there are boxes of objects, all of VOC's own classes."""
    files = files_in(annotations) if annotations.is_dir() else []
    texts = (f.read_text(encoding="utf-8", errors="replace") for f in files[:_LOOKED_AT] if f.suffix.lower() == ".xml")
    boxed = {name for text in texts for name in _BOXED.findall(text)}
    return bool(boxed) and boxed <= set(_NAMES)

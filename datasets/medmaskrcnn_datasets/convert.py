"""Converts any supported labelled data to a manifest: the format is detected, and assumptions are reported.

``medmaskrcnn train`` calls this when it is given something other than a manifest.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn_datasets.assemble import CountProgress, OnEvent
from medmaskrcnn_datasets.case_table import read_case_table
from medmaskrcnn_datasets.coco import coco_dataset, coco_files, is_coco
from medmaskrcnn_datasets.dicom_labels import dicom_dataset
from medmaskrcnn_datasets.folders import instances_dataset, is_folder_per_image, semantic_dataset
from medmaskrcnn_datasets.foreign import foreign_labels
from medmaskrcnn_datasets.layouts import find_pairs, has_pairs, label_folder_name
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.nnunet import nnunet_dataset
from medmaskrcnn_datasets.numbering import IGNORED_BY_CUSTOM, Numbers, survey
from medmaskrcnn_datasets.objects import ClassRules, Rule
from medmaskrcnn_datasets.patients import patient_by
from medmaskrcnn_datasets.source_files import files_in, folders_in, is_leftover, read_json
from medmaskrcnn_datasets.splits import SplitRule
from medmaskrcnn_datasets.voc import class_maps, voc_class_names

Format = Literal["manifest", "msd", "nnunet", "coco", "instances", "semantic", "dicom"]

DEFAULT_SPLITS = SplitRule(test_share=0.2, val_share=0.1, fallback=True)

_LOG = logging.getLogger(__name__)
_LOOKED_AT = 200  # at most this many files of a folder are tested for DICOM
_PICTURES = ("PNG", "TIFF", "JPEG")
_INSTANCE_FOLDERS = ("masks", "instances", "segmentationobject")
_CLASS_TABLE = "_classes.csv"  # Roboflow's: "Pixel Value, Class"


@dataclass(frozen=True)
class ConversionOptions:
    """What somebody says of a data set that it does not say itself.

    Attributes:
        rules: What one object is (:class:`~medmaskrcnn_datasets.objects.ClassRules`), values to ignore, new names.
        classes: Names of label values where no file names them: ``{1: "liver"}``.
        class_name: Class of the objects of instance masks.
        patient: A regular expression; what it matches in a case's name (its first group) is the patient.
    """

    rules: ClassRules = ClassRules("auto")  # noqa: RUF009 - it is frozen
    classes: Mapping[int, str] = field(default_factory=dict)
    class_name: str = "object"
    patient: str = ""


AS_IT_SAYS = ConversionOptions()
"""Nothing more is said."""


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
    if coco_files(source):
        return "coco"
    if is_folder_per_image(source):
        return "instances"
    if has_pairs(source):
        pictures = any(sniff(file) in _PICTURES for file in _first_files(source))
        named = label_folder_name(source).lower() in _INSTANCE_FOLDERS
        return "instances" if pictures or named else "semantic"
    return "dicom" if any(sniff(file) == "DICOM" for file in _first_files(source)) else None


def to_manifest(
    path: Path | str,
    out_dir: Path | str,
    *,
    splits: SplitRule = DEFAULT_SPLITS,
    options: ConversionOptions = AS_IT_SAYS,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for the labelled data at a path, with the defaults of its adapter.

    Args:
        path: A manifest (returned unchanged), a data set in MSD or nnU-Net layout, a COCO JSON, a folder of images
            with masks or labels, or a folder of DICOM with RTSTRUCT or SEG.
        out_dir: Gets the manifest and converted files. An earlier conversion of the same files, by their names, sizes
            and times, is reused.
        splits: Patients for validation and testing, where the data set does not say it.
        options: What the data set does not say itself.
        on_event: Called with each assumption; by default they are logged.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError: if nothing there can be converted to a manifest, or part of it cannot be read.
        OutputError: if ``out_dir`` cannot be written.
    """
    source = _unwrapped(Path(path).resolve())
    on_event = on_event or _LOG.info
    kind = detect_format(source)
    if kind is None:
        raise ReadError(
            foreign_labels(source)
            or f"{source} is no labelled data set that can be recognised. Wanted: a manifest.json, a data set in MSD "
            "or nnU-Net layout, a COCO JSON, images/ with masks/ or labels/, or DICOM with RTSTRUCT or SEG. "
            "See python -m medmaskrcnn_datasets --help"
        )
    if kind == "manifest":
        return source / "manifest.json" if source.is_dir() else source
    target = make_folder(out_dir)
    state = {
        "source": str(source),
        "format": kind,
        "splits": repr(splits),
        "options": repr(options),
        "files": _state_of(source, target),
    }
    record = target / "converted_from.json"
    manifest = target / "manifest.json"
    before = read_json(record) if manifest.is_file() else None
    if isinstance(before, dict) and {key: before.get(key) for key in state} == state:
        on_event(f"{source} was converted before, to {manifest}")
        for text in before.get("told", []):
            on_event(str(text))
        return manifest
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        on_event(text)

    on_event(f"{source} is taken for {_WORDS[kind]}")
    on_event(f"patients are dealt into splits by name: {splits.test_share:.0%} test, {splits.val_share:.0%} validation")
    made = _Conversion(source, target, splits, options, tell, progress).run(kind)
    write_bytes(record, json.dumps(state | {"told": told}, indent=1).encode())
    return made


def _unwrapped(source: Path) -> Path:
    """The only folder in a folder that holds nothing else, as unpacked archives have it, if that is a data set."""
    inner = source
    while inner.is_dir() and detect_format(inner) is None:
        inside = folders_in(inner)
        if len(inside) != 1 or files_in(inner):
            return source
        inner = inside[0]
    return inner


_WORDS: dict[Format, str] = {
    "manifest": "a manifest",
    "msd": "a data set in MSD layout",
    "nnunet": "a data set in nnU-Net's raw layout",
    "coco": "a COCO file; each annotation is one object",
    "instances": "images with instance masks",
    "semantic": "images with maps of classes",
    "dicom": "DICOM with RTSTRUCT or SEG; each region or segment is one object",
}


@dataclass(frozen=True)
class _Conversion:
    """One data set on its way to a manifest."""

    source: Path
    target: Path
    splits: SplitRule
    options: ConversionOptions
    tell: OnEvent
    progress: CountProgress | None

    def run(self, kind: Format) -> Path:
        folder = self.source.parent if self.source.name == "dataset.json" else self.source
        common = self._common()
        rules = self.options.rules
        if kind == "msd":
            return msd_dataset(folder, self.target, rules=rules, **common)
        if kind == "nnunet":
            return nnunet_dataset(folder, self.target, rules=rules, **common)
        if kind == "coco":
            return coco_dataset(self.source, self.target, rename=rules.rename, **common)
        if kind == "dicom":
            return dicom_dataset(self.source, self.target, rename=rules.rename, **common)
        return self._folder(kind)

    def _common(self) -> dict[str, Any]:
        patient_of = patient_by(self.options.patient) if self.options.patient else None
        return {
            "splits": self.splits,
            "patient_of": patient_of,
            "on_event": self.tell,
            "progress": self.progress,
        }

    def _folder(self, kind: Format) -> Path:
        """Images with label maps: the numbers tell whether these are of objects or of classes."""
        classes = dict(self.options.classes) or _classes_of_table(self.source)
        if is_folder_per_image(self.source):
            return self._objects(None, ())
        pairs = find_pairs(self.source)
        numbers = survey([(pair.id, pair.image, pair.label) for pair in pairs], progress=self.progress)
        ignore = self.options.rules.ignore or numbers.ignored_by_custom()
        if class_maps(pairs):
            return self._objects_of_classes(classes or voc_class_names(self.source), numbers, ignore)
        table = read_case_table(self.source)
        classes_named = label_folder_name(self.source).lower() == "segmentationclass"
        likely: Literal["objects", "classes"] = "objects" if kind == "instances" and not classes_named else "classes"
        meaning = numbers.meaning(ignore=ignore, likely=likely)
        named = table is not None and "class" in table.columns.values()
        inside = meaning == "mask" and (kind == "instances" or numbers.values == (IGNORED_BY_CUSTOM,))
        if not classes and (meaning == "objects" or named or inside):
            if meaning == "objects" and kind == "semantic":
                self.tell("the label maps are numbered anew in each case: a number is taken as one object, not a class")
            return self._objects(numbers, ignore)
        if not classes:
            classes = {value: f"label {value}" for value in numbers.values if value not in ignore}
            self.tell(f"nothing says what the label values mean; the classes are called {', '.join(classes.values())}")
        rules = replace(self.options.rules, ignore=tuple(ignore))
        if ignore and not self.options.rules.ignore:
            self.tell("the value 255 stands for voxels to ignore")
        return semantic_dataset(self.source, self.target, classes=classes, rules=rules, **self._common())

    def _objects_of_classes(self, classes: Mapping[int, str], numbers: Numbers, ignore: Sequence[int]) -> Path:
        """Pascal VOC: maps of objects, and of their classes."""
        rename = self.options.rules.rename
        self.tell("each number of SegmentationObject is one object; its class stands in SegmentationClass")
        names = {value: rename.get(name, name) for value, name in classes.items()} or None
        return instances_dataset(
            self.source, self.target, classes=names, ignore=ignore, numbers=numbers, **self._common()
        )

    def _objects(self, numbers: Numbers | None, ignore: Sequence[int]) -> Path:
        options = self.options
        name = options.class_name
        table = read_case_table(self.source)
        if table is None or "class" not in table.columns.values():
            name = options.rules.rename.get(name, name)
            self.tell(f"the objects' class is called {name!r}")
        unknown = sorted({*options.rules.by_class, *options.rules.within} - {name})
        if unknown and table is None:
            raise ValueError(f"rules speak of classes {unknown}; there is {name}")
        rule: Rule = options.rules.by_class.get(name, options.rules.default)
        return instances_dataset(
            self.source, self.target, class_name=name, rule=rule, ignore=ignore, numbers=numbers, **self._common()
        )


def _classes_of_table(source: Path) -> dict[int, str]:
    """Names of label values in Roboflow's table of classes; empty if there is none."""
    file = next(iter(sorted(source.rglob(_CLASS_TABLE))), None)
    if file is None:
        return {}
    rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    return {
        int(row[0]): row[1].strip() for row in rows[1:] if len(row) >= 2 and row[0].strip().isdigit() and int(row[0])
    }


def _format_of_file(path: Path) -> Format | None:
    content = read_json(path)
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


def _first_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_leftover(Path(name)))
        for name in sorted(files):
            if is_leftover(Path(name)):
                continue
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

"""Adapters for folders of images and label maps paired by name, and for a folder per image with a mask per object.

Label maps are *instance* maps (each object has its own number, as in microscopy) or *semantic* maps (as segmentation
networks write them). Images may be 2D images or scans of any readable format.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medmaskrcnn.data.case_labels import values_in
from medmaskrcnn.data.class_kinds import is_single_organ
from medmaskrcnn.data.manifest import ManifestInstance, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.io.labels.label_volume import read_label_volume
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.grid import same_grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, LabelFiles, OnEvent, assemble
from medmaskrcnn_datasets.case_table import CaseTable, read_case_table
from medmaskrcnn_datasets.class_maps import class_map_converter
from medmaskrcnn_datasets.class_rules import ClassParts, settled_rules, told_objects
from medmaskrcnn_datasets.label_files import read_label_map, write_label_maps
from medmaskrcnn_datasets.layouts import SPLIT_FOLDERS, Pair, find_pairs
from medmaskrcnn_datasets.numbering import IGNORED_BY_CUSTOM, Numbers, survey
from medmaskrcnn_datasets.objects import ClassRules, Rule
from medmaskrcnn_datasets.source_files import folders_in, scans_in, some
from medmaskrcnn_datasets.splits import SplitRule
from medmaskrcnn_datasets.voc import VOID, class_maps, object_classes_converter, voc_class_names

_LOG = logging.getLogger(__name__)


def instances_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    class_name: str = "object",
    classes: Mapping[int, str] | None = None,
    rule: Rule = "auto",
    ignore: Sequence[int] | None = None,
    numbers: Numbers | None = None,
    name: str | None = None,
    modality: str | None = None,
    licence: str = "unknown",
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for images with instance masks.

    Args:
        folder: Images and masks in one of the layouts of :mod:`medmaskrcnn_datasets.layouts`, each mask an integer map
            with one number per object; or a folder per image, each with ``images/`` (one file) and ``masks/`` (one file
            per object, nonzero inside it), as in Data Science Bowl 2018. A ``cases.csv`` in it is read.
        out_dir: Gets ``manifest.json``; label maps in ``labels/`` are written where the masks cannot be used.
        class_name: Class of the objects; a column ``class`` of ``cases.csv`` overrules it, and so do maps of classes in
            Pascal VOC's ``SegmentationClass``.
        classes: Class of each number of those maps; by default as the data set names them, else ``"label 1"``, ...
        rule: What one object is: the voxels of one number (``"value"``), each connected part, or all. ``"auto"``: the
            number, or the part where every mask has one number only (0 and 255).
        ignore: Numbers whose voxels are to be ignored; by default 255 where all other numbers are far smaller.
        numbers: The numbers of the masks, where they were looked at before.
        name: Name of the data set; by default the folder's.
        modality: DICOM modality, for scans; ``None`` for 2D images such as PNG.
        licence: Licence of the data.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default as for :func:`~medmaskrcnn_datasets.assemble.assemble`.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest.

    Raises:
        ReadError: if images and masks do not fit together, or one cannot be read.
        ValueError: if ``splits`` names unknown patients.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    tell = on_event or _LOG.warning
    table = read_case_table(root)
    maps: dict[str, Path] = {}
    if is_folder_per_image(root):
        found_cases = tuple(
            _case_of_folder(one, _class_of(table, one.name, class_name)) for one in _folders_of_images(root)
        )
    else:
        pairs = find_pairs(root)
        files = [(pair.id, pair.image, pair.label) for pair in pairs]
        maps = class_maps(pairs)
        names = classes or (_names_of_maps(root, pairs, maps, tell) if maps else {})
        rule = "value" if maps else rule
        if rule == "auto" or ignore is None:
            numbers = numbers or survey(files, progress=progress)
            ignore = numbers.ignored_by_custom() if ignore is None else ignore
            if numbers.ignored_by_custom() and set(ignore) == {IGNORED_BY_CUSTOM}:
                tell("the number 255 stands for voxels to ignore")
            if rule == "auto":
                rule = _rule_of(numbers, class_name, ignore, tell)
        found_cases = tuple(
            FoundCase(
                pair.id,
                (pair.image,),
                object_classes_converter(pair, maps[pair.id], names, ignore)
                if maps and not (table and table.row(pair.id).class_name)
                else _instance_converter(pair, _class_of(table, pair.id, class_name), rule, ignore),
                pair.patient,
                pair.split,
            )
            for pair in pairs
        )
    there = () if maps else tuple(sorted({_class_of(table, case.id, class_name) for case in found_cases}))
    found = FoundDataset(name or root.name, modality, licence, there, found_cases, table)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)


def semantic_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    classes: Mapping[int, str],
    rules: ClassRules | None = None,
    name: str | None = None,
    modality: str | None = None,
    licence: str = "unknown",
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for images with semantic label maps.

    Args:
        folder: Images and label maps in one of the layouts of :mod:`medmaskrcnn_datasets.layouts`; a ``cases.csv`` in
            it is read.
        out_dir: Gets ``manifest.json``, and instance maps in ``labels/`` where the rules need them.
        classes: Class of each value; several values may have one class. Values that it lacks are background.
        rules: What one object is; by default parts or the whole, as a class's name and its labels show.
        name: Name of the data set; by default the folder's.
        modality: DICOM modality, for scans; ``None`` for 2D images such as PNG.
        licence: Licence of the data.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default as for :func:`~medmaskrcnn_datasets.assemble.assemble`.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest.

    Raises:
        ReadError: if images and labels do not fit together, or one cannot be read.
        ValueError: if ``splits`` names unknown patients, or ``rules`` unknown classes.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    tell = on_event or _LOG.warning
    groups: dict[str, list[int]] = {}
    for value, class_name in sorted(classes.items()):
        if value < 1:
            raise ValueError(f"values of classes must be 1 or more, 0 is background; got {value} for {class_name!r}")
        groups.setdefault(class_name, []).append(value)
    pairs = find_pairs(root)
    files = [(pair.id, pair.image, pair.label) for pair in pairs]
    rules = settled_rules(rules or ClassRules("auto"), groups, files, progress=progress)
    cases = tuple(
        FoundCase(
            pair.id,
            (pair.image,),
            class_map_converter(pair.id, pair.image, pair.label, groups, rules, background=None),
            pair.patient,
            pair.split,
        )
        for pair in pairs
    )
    names = tuple(rules.named(groups))
    table = read_case_table(root, class_names=(*groups, *names))
    found = FoundDataset(name or root.name, modality, licence, names, cases, table, rules.rename)
    made = assemble(found, out_dir, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)
    tell(told_objects(read_manifest(made), rules))
    return made


def _names_of_maps(root: Path, pairs: Sequence[Pair], maps: Mapping[str, Path], tell: OnEvent) -> dict[int, str]:
    """Class of each number in maps of classes: as the data set names them, else as numbers."""
    names = voc_class_names(root)
    if not names:
        numbers = {n for pair in pairs for n in values_in(read_label_map(pair.id, pair.image, maps[pair.id])[0])}
        names = {number: f"label {number}" for number in sorted(numbers - {VOID})}
        tell(f"nothing names the classes in SegmentationClass; they are called {', '.join(names.values())}")
    return names


def _class_of(table: CaseTable | None, case: str, class_name: str) -> str:
    """The class of a case's objects: the table's, else that of the data set."""
    return (table.row(case).class_name if table else None) or class_name


def _rule_of(numbers: Numbers, class_name: str, ignore: Sequence[int], tell: OnEvent) -> Rule:
    """What one object is in masks of objects, and a sentence about it where it is not one number each."""
    if numbers.meaning(ignore=ignore) != "mask":
        return "value"
    if is_single_organ(class_name):
        return "whole"
    parts = [sum(n for value, n in case.parts.items() if value not in ignore) for case in numbers.cases]
    shown = ClassParts(sum(map(bool, parts)), sum(n > 1 for n in parts)).rule()
    if shown == "whole" and not all(case.planar for case in numbers.cases):
        return "whole"
    if max(parts, default=0) > 1:
        tell(
            f"every mask holds one number only, in {sum(parts)} separate parts in {sum(map(bool, parts))} cases: each "
            "part is taken as one object"
        )
    return "components"


def is_folder_per_image(root: Path) -> bool:
    """True if the folder's subfolders hold ``images/`` and ``masks/`` each, and are not the splits of a data set."""
    if not root.is_dir() or (root / "images").is_dir():
        return False
    inside = folders_in(root)
    return any(_has_masks(one) for one in inside) and not any(one.name.lower() in SPLIT_FOLDERS for one in inside)


def _folders_of_images(root: Path) -> list[Path]:
    """The folders of all images.

    Raises:
        ReadError: if one has masks but no image, or an image but no masks.
    """
    halves = {one: [name for name in ("images", "masks") if (one / name).is_dir()] for one in folders_in(root)}
    half = [one.name for one, found in halves.items() if len(found) == 1]
    if half:
        raise ReadError(
            f"{len(half)} folders of {root} lack their images/ or masks/: {some(half)}. Add them (an image without "
            "objects has an empty masks/), or take these folders out"
        )
    return [one for one, found in halves.items() if found]


def _has_masks(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _instance_converter(pair: Pair, class_name: str, rule: Rule, ignore: Sequence[int]) -> Callable[[Path], LabelFiles]:
    if rule != "value":
        return _mask_converter(pair, class_name, rule, ignore)

    def convert(_: Path) -> LabelFiles:
        values, _grid = read_label_map(pair.id, pair.image, pair.label)
        return (pair.label,), tuple(
            ManifestInstance(value=v, ignore=True) if v in ignore else ManifestInstance(value=v, class_name=class_name)
            for v in values_in(values)
        )

    return convert


def _mask_converter(pair: Pair, class_name: str, rule: Rule, ignore: Sequence[int]) -> Callable[[Path], LabelFiles]:
    """Masks that say only what is inside: the parts, or the whole, are objects."""

    def convert(folder: Path) -> LabelFiles:
        values, _ = read_label_map(pair.id, pair.image, pair.label)
        inside = [value for value in values_in(values) if value not in ignore]
        rules = ClassRules(rule, ignore=tuple(ignore))
        return class_map_converter(pair.id, pair.image, pair.label, {class_name: inside}, rules)(folder)

    return convert


def _case_of_folder(folder: Path, class_name: str) -> FoundCase:
    images, masks = scans_in(folder / "images"), scans_in(folder / "masks")
    if len(images) != 1:
        raise ReadError(f"{folder / 'images'} must hold one image, it holds {len(images)}")

    def convert(labels: Path) -> LabelFiles:
        return write_label_maps(
            _objects(images[0], masks, class_name), read_volume(images[0]).grid, labels / folder.name
        )

    return FoundCase(folder.name, (images[0],), convert)


def _objects(image: Path, masks: Sequence[Path], class_name: str) -> list[LabelledObject]:
    """One object from each mask file; empty masks are left out."""
    grid = read_volume(image).grid
    found = []
    for path in masks:
        mask = read_label_volume(path)
        if not same_grid(mask.grid, grid):
            raise ReadError(f"{path} is {mask.grid.shape} voxels (D, H, W), its image {image} is {grid.shape}")
        found.append(LabelledObject(class_name, Mask((0, 0, 0), (mask.array != 0).any(axis=0)).tight()))
    return [one for one in found if not one.mask.is_empty]

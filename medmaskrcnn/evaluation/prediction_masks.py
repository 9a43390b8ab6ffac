"""The masks of one prediction on its case's grid, whatever it is stored in: a map, masks of classes, SEG, COCO, ..."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medmaskrcnn.data.manifest import ManifestCase
from medmaskrcnn.errors import ReadError
from medmaskrcnn.evaluation.prediction_files import OWN_LABEL_MAP, class_of_mask, is_label_map, pictures_of
from medmaskrcnn.io.labels.coco import read_coco
from medmaskrcnn.io.labels.label_maps import labels_of_map
from medmaskrcnn.io.labels.label_set import LabelSet
from medmaskrcnn.io.labels.label_volume import read_label_volume
from medmaskrcnn.io.labels.read import load_labels
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume


def read_prediction(
    files: tuple[Path, ...],
    case: ManifestCase,
    volume: Volume,
    values: Mapping[str, tuple[int, ...]],
    only_class: str,
) -> LabelSet:
    """The labelled parts of a prediction, as its files have them.

    Args:
        files: One file, or a mask for each class.
        case: The case.
        volume: Its scan, whose grid the result has.
        values: Classes and their values in label maps; empty for maps in which each value is an object.
        only_class: The class of those objects.

    Raises:
        ReadError: if a file is damaged or belongs to another scan.
    """
    file = files[0]
    if len(files) > 1:
        return _masks_of_classes(files, volume)
    if file.suffix.lower() == ".json":
        return _of_coco(file, case, volume)
    if not is_label_map(file):
        return load_labels(file, volume)
    if is_our_map(file):
        return _our_map(file, volume)
    return _label_map(file, volume, values, only_class)


def _label_map(file: Path, volume: Volume, values: Mapping[str, tuple[int, ...]], only_class: str) -> LabelSet:
    """A map of classes, or of instances of the only class."""
    label_map = read_label_volume(file)
    if not values:
        labels = labels_of_map(file, label_map, volume, names=None, kind="instance")
        found = labels.instances
        return replace(labels, instances=found.renamed(dict.fromkeys(found.class_names, only_class), (only_class,)))
    named = {value: str(value) for group in values.values() for value in group}
    labels = labels_of_map(file, label_map, volume, names=named, kind="instance")
    found = labels.instances
    chosen = [
        (name, [i for i, label in enumerate(found.labels) if int(found.class_names[label]) in group])
        for name, group in values.items()
    ]
    flat = [(k, i) for k, (_, parts) in enumerate(chosen) for i in parts]
    masks = [found.masks[i] for _, i in flat]
    return replace(labels, instances=Instances.from_masks(volume.grid, tuple(values), [k for k, _ in flat], masks))


def _masks_of_classes(files: Sequence[Path], volume: Volume) -> LabelSet:
    """One mask file for each class; whatever is not 0 in it is of its class."""
    names = tuple(class_of_mask(file) for file in files)
    labels, masks, notes = [], [], []
    for k, file in enumerate(files):
        read = labels_of_map(file, read_label_volume(file), volume, names=None, kind="instance")
        masks += list(read.instances.masks)
        labels += [k] * len(read.instances)
        notes += list(read.notes)
    return LabelSet(Instances.from_masks(volume.grid, names, labels, masks), tuple(dict.fromkeys(notes)))


def _of_coco(file: Path, case: ManifestCase, volume: Volume) -> LabelSet:
    errors = []
    for picture in pictures_of(case):
        try:
            return LabelSet(read_coco(file, volume.grid, picture=picture))
        except ReadError as error:
            errors.append(error)
    raise errors[0]


def is_our_map(file: Path) -> bool:
    """Whether a label map is one that we wrote, with a table that tells each value's class and score."""
    return file.name == OWN_LABEL_MAP[0] and (file.parent / OWN_LABEL_MAP[1]).is_file()


def our_values(file: Path) -> dict[int, tuple[str, float]]:
    """Class and score of each value, from the table beside our label map."""
    table = file.parent / OWN_LABEL_MAP[1]
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            return {int(row["id"]): (row["class"], float(row["score"] or 1)) for row in csv.DictReader(stream)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"{table} does not tell the classes of {file.name} beside it: {error}") from error


def _our_map(file: Path, volume: Volume) -> LabelSet:
    values = our_values(file)
    names = {value: str(value) for value in values}
    labels = labels_of_map(file, read_label_volume(file), volume, names=names, kind="instance")
    found, class_names = labels.instances, tuple(dict.fromkeys(name for name, _ in values.values()))
    ids = [int(found.class_names[label]) for label in found.labels]
    made = Instances.from_masks(
        volume.grid,
        class_names,
        [class_names.index(values[i][0]) for i in ids],
        found.masks,
        scores=[values[i][1] for i in ids],
    )
    return replace(labels, instances=made)

"""Data sets in the layout of the Medical Segmentation Decathlon (https://medicaldecathlon.com).

``dataset.json`` names the classes and pairs images with semantic label maps; a 4D image holds several sequences, which
become channels. The data set's own folder is only read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.assemble import (
    CountProgress,
    FoundCase,
    FoundDataset,
    OnEvent,
    assemble,
    modality_of,
    sequences_of,
)
from medmaskrcnn_datasets.case_table import read_case_table
from medmaskrcnn_datasets.class_maps import class_map_converter
from medmaskrcnn_datasets.class_rules import settled_rules, told_objects
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.source_files import find_file, json_object, scans_in, some, stem_of
from medmaskrcnn_datasets.splits import SplitRule

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MsdDescription:
    """The content of a ``dataset.json``.

    Attributes:
        folder: The data set's folder.
        name, licence: As stated.
        modality: DICOM modality, ``"MR"`` or ``"CT"``, or ``None`` for others and mixtures.
        classes: Class name of each label value, without the background.
        pairs: Case id, image and label of each training case.
        channels: Names of the sequences of a 4D image.
    """

    folder: Path
    name: str
    licence: str
    modality: str | None
    classes: dict[int, str]
    pairs: tuple[tuple[str, Path, Path], ...]
    channels: tuple[str, ...] = ()


def msd_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    rules: ClassRules | None = None,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for the training cases of a data set in MSD layout.

    Args:
        folder: Holds ``dataset.json``, and perhaps ``cases.csv``; it may be read-only.
        out_dir: Gets ``manifest.json``, and instance maps in ``labels/`` where the rules need them.
        rules: What one object is; by default parts or the whole, as a class's name and its labels show.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default as for :func:`~medmaskrcnn_datasets.assemble.assemble`.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Paths in it are relative where the data lies under ``out_dir``, else absolute.

    Raises:
        ReadError: if ``dataset.json`` or a case is missing, damaged or contradicts itself.
        ValueError: if ``splits`` names unknown patients, or ``rules`` unknown classes.
        OutputError: if ``out_dir`` cannot be written.
    """
    tell = on_event or _LOG.warning
    description = read_description(folder)
    classes: dict[str, list[int]] = {}
    for value in sorted(description.classes):
        classes.setdefault(description.classes[value], []).append(value)
    rules = settled_rules(rules or ClassRules("auto"), classes, description.pairs, progress=progress)
    cases = tuple(
        FoundCase(case, (image,), class_map_converter(case, image, label, classes, rules))
        for case, image, label in description.pairs
    )
    names = tuple(rules.named(classes))
    table = read_case_table(description.folder, class_names=(*classes, *names))
    found = FoundDataset(
        description.name,
        description.modality,
        description.licence,
        names,
        cases,
        table,
        rules.rename,
        description.channels,
        _left_over(description),
    )
    made = assemble(found, out_dir, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)
    tell(told_objects(read_manifest(made), rules))
    return made


def read_description(folder: Path | str) -> MsdDescription:
    """Read ``dataset.json``; no image is opened.

    Raises:
        ReadError: if it is missing, not JSON, or lacks labels or training cases.
    """
    root = Path(folder).resolve()
    path = root / "dataset.json"
    content = json_object(path, "a folder in MSD layout")
    labels, training = content.get("labels"), content.get("training")
    if not isinstance(labels, dict) or not isinstance(training, list) or not training:
        raise ReadError(f"{path} must hold 'labels' and a list 'training', got keys {sorted(content)}")
    try:
        classes = {int(value): str(name) for value, name in labels.items()}
    except (TypeError, ValueError) as error:
        raise ReadError(f"{path}: 'labels' must map numbers to names, 1 to 'liver', got {labels}") from error
    classes.pop(0, None)
    pairs = []
    for entry in training:
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise ReadError(f"{path}: each training case must name 'image' and 'label', got {entry!r}")
        image, label = (
            find_file((root, root / sub), str(entry[key]))
            for key, sub in (("image", "imagesTr"), ("label", "labelsTr"))
        )
        pairs.append((stem_of(image), image, label))
    licence = str(content.get("licence") or content.get("license") or "unknown")
    modality = modality_of(content.get("modality"))
    name, channels = str(content.get("name") or root.name), sequences_of(content.get("modality"))
    return MsdDescription(root, name, licence, modality, classes, tuple(pairs), channels)


def _left_over(description: MsdDescription) -> tuple[str, ...]:
    """Sentences about images and label maps that no training case names."""
    told = []
    named = {file for _, image, label in description.pairs for file in (image, label)}
    for folder, what in ((description.folder / "imagesTr", "images"), (description.folder / "labelsTr", "label maps")):
        over = [file.name for file in scans_in(folder) if file not in named] if folder.is_dir() else []
        if over:
            names = some(over)
            told.append(
                f"{folder.name} holds {len(over)} {what} that dataset.json does not name; they are not used: {names}"
            )
    return tuple(told)

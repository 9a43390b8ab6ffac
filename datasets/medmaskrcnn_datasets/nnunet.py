"""Data sets in nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz`` (one file per channel), ``labelsTr/CASE.nii.gz``.

``dataset.json`` is that of version 2 (``channel_names``, labels by name, regions as lists of values) or of version 1.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from medmaskrcnn_datasets.objects import ClassRules, Rule
from medmaskrcnn_datasets.source_files import json_object, scans_in, some, stem_of
from medmaskrcnn_datasets.splits import SplitRule

_LOG = logging.getLogger(__name__)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_CHANNEL_ENDING = re.compile(r"_\d{4}(?=\.)")
_IGNORED = "ignore"


def nnunet_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    rules: ClassRules | None = None,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for the training cases of a data set in nnU-Net's raw layout.

    Args:
        folder: Holds ``dataset.json``, ``imagesTr`` and ``labelsTr``; it may be read-only.
        out_dir: Gets ``manifest.json``, and instance maps in ``labels/`` where the rules need them.
        rules: What one object is; by default parts or the whole, as a class's name and its labels show. Regions
            overlap.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default as for :func:`~medmaskrcnn_datasets.assemble.assemble`.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Voxels labelled ``ignore`` are regions to ignore.

    Raises:
        ReadError: if ``dataset.json`` or a case is missing, damaged or contradicts itself.
        ValueError: if ``splits`` names unknown patients, or ``rules`` unknown classes.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    tell = on_event or _LOG.warning
    path = root / "dataset.json"
    content = json_object(path, "a folder in nnU-Net's raw layout")
    classes, ignored = _classes(path, content)
    rules = rules or ClassRules("auto")
    rules = replace(rules, ignore=(*rules.ignore, *ignored))
    if any(len(group) > 1 for group in classes.values()):  # a region's values are one object, not several
        regions = {rules.rename.get(name, name) for name, group in classes.items() if len(group) > 1}
        whole: dict[str, Rule] = {name: "whole" for name in regions if rules.rule(name) == "value"}
        rules = replace(rules, by_class={**rules.by_class, **whole})
    channels = content.get("channel_names") or content.get("modality")
    pairs = _cases(root, len(channels) if isinstance(channels, dict) else None)
    _tell_numbers(path, content, len(pairs), tell)
    files = [(case, images[0], label) for case, images, label in pairs]
    rules = settled_rules(rules, classes, files, progress=progress)
    cases = tuple(
        FoundCase(case, images, class_map_converter(case, images[0], label, classes, rules))
        for case, images, label in pairs
    )
    name = str(content.get("name") or re.sub(r"^Dataset\d+_", "", root.name))
    licence = str(content.get("licence") or content.get("license") or "unknown")
    names = tuple(rules.named(classes))
    table = read_case_table(root, class_names=(*classes, *names))
    found = FoundDataset(
        name, modality_of(channels), licence, names, cases, table, rules.rename, sequences_of(channels)
    )
    made = assemble(found, out_dir, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)
    tell(told_objects(read_manifest(made), rules))
    return made


def _classes(path: Path, content: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Values of each class, smallest first, and the values to ignore."""
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise ReadError(f"{path} must hold 'labels', got keys {sorted(content)}")
    pairs = list(labels.items())
    if all(str(name).isdigit() and isinstance(value, str) for name, value in pairs):  # version 1
        pairs = [(value, int(name)) for name, value in pairs]
    try:
        values = {
            str(name): tuple(int(v) for v in (value if isinstance(value, list) else [value])) for name, value in pairs
        }
    except (TypeError, ValueError) as error:
        raise ReadError(f"{path}: 'labels' must map names to numbers or lists of them, got {labels}") from error
    ignored = values.pop(_IGNORED, ())
    classes = {name: group for name, group in values.items() if group and 0 not in group}
    return dict(sorted(classes.items(), key=lambda item: (len(item[1]) == 1, item[1]))), ignored


def _cases(root: Path, n_channels: int | None) -> list[tuple[str, tuple[Path, ...], Path]]:
    """Id, images by channel and label of each training case, by name."""
    folder, labels = root / "imagesTr", root / "labelsTr"
    for needed in (folder, labels):
        if not needed.is_dir():
            raise ReadError(f"{needed} does not exist. Is this a folder in nnU-Net's raw layout?")
    images: dict[str, dict[int, Path]] = {}
    for file in scans_in(folder):
        match = _CHANNEL.fullmatch(stem_of(file))
        if match:
            channels = images.setdefault(match["case"], {})
            number = int(match["channel"])
            if number in channels:
                raise ReadError(f"{channels[number]} and {file} are one channel of the case {match['case']!r}")
            channels[number] = file
    if not images:
        raise ReadError(f"{folder} holds no image named CASE_0000.ENDING")
    maps = {stem_of(file): file for file in scans_in(labels)}
    _check_pairs(folder, labels, images, maps)
    cases = []
    for case, channels in images.items():
        if sorted(channels) != list(range(n_channels or len(channels))):
            wanted = "one after the other from 0000" if n_channels is None else f"0000 to {n_channels - 1:04d}"
            raise ReadError(f"case {case!r} has the channels {sorted(channels)} in {folder}, wanted are {wanted}")
        cases.append((case, tuple(channels[number] for number in sorted(channels)), maps[case]))
    return cases


def _check_pairs(
    folder: Path, labels: Path, images: Mapping[str, Mapping[int, Path]], maps: Mapping[str, Path]
) -> None:
    """Refuse cases without a label map, and label maps without a case."""
    alone = sorted(set(images) - set(maps))
    if alone:
        wanted = labels / _CHANNEL_ENDING.sub("", next(iter(images[alone[0]].values())).name)
        more = f", nor have {len(alone) - 1} further cases" if len(alone) > 1 else ""
        raise ReadError(f"case {alone[0]!r} has no label map {wanted}{more}")
    over = sorted(set(maps) - set(images))
    if over:
        raise ReadError(
            f"{labels} holds label maps without an image CASE_0000.ENDING in {folder}: {some(over)}. "
            "Add the images, or take these label maps out"
        )


def _tell_numbers(path: Path, content: Mapping[str, Any], found: int, tell: OnEvent) -> None:
    stated = content.get("numTraining")
    if isinstance(stated, int) and stated != found:
        tell(f"{path} says that there are {stated} training cases; {found} are found")

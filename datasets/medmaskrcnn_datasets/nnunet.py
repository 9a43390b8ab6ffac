"""Data sets in nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz`` (one file per channel), ``labelsTr/CASE.nii.gz``.

``dataset.json`` is that of version 2 (``channel_names``, labels by name, regions as lists of values) or of version 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, assemble, json_object, modality_of
from medmaskrcnn_datasets.class_maps import class_map_converter
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.splits import SplitRule

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_IGNORED = "ignore"


def nnunet_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    rules: ClassRules | None = None,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for the training cases of a data set in nnU-Net's raw layout.

    Args:
        folder: Holds ``dataset.json``, ``imagesTr`` and ``labelsTr``; it may be read-only.
        out_dir: Gets ``manifest.json``, and instance maps in ``labels/`` where the rules need them.
        rules: What one object is; by default each label value of a case. Regions overlap: each is one object.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default each case is a patient of its own.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Voxels labelled ``ignore`` are background.

    Raises:
        ReadError: if ``dataset.json`` or a case is missing, damaged or contradicts itself.
        ValueError: if ``splits`` names unknown patients, or ``rules`` unknown classes.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    path = root / "dataset.json"
    content = json_object(path, "a folder in nnU-Net's raw layout")
    classes, ignored = _classes(path, content)
    rules = rules or ClassRules()
    if any(len(group) > 1 for group in classes.values()):  # a region's values are one object, not several
        regions = {rules.rename.get(name, name) for name, group in classes.items() if len(group) > 1}
        whole = {name: rules.by_class.get(name, "one") for name in regions if rules.rule(name) == "value"}
        rules = ClassRules(rules.default, {**rules.by_class, **whole}, rules.rename, rules.within, rules.least_voxels)
    channels = content.get("channel_names") or content.get("modality")
    cases = tuple(
        FoundCase(case, images, class_map_converter(case, images[0], label, classes, rules, background=ignored))
        for case, images, label in _cases(root, len(channels) if isinstance(channels, dict) else None)
    )
    name = str(content.get("name") or re.sub(r"^Dataset\d+_", "", root.name))
    licence = str(content.get("licence") or content.get("license") or "unknown")
    found = FoundDataset(name, modality_of(channels), licence, tuple(rules.named(classes)), cases)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, progress=progress)


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
    images: dict[tuple[str, str], dict[int, Path]] = {}
    for file in sorted(folder.iterdir()):
        stem, ending = _name_and_ending(file)
        match = _CHANNEL.fullmatch(stem)
        if match:
            images.setdefault((match["case"], ending), {})[int(match["channel"])] = file
    if not images:
        raise ReadError(f"{folder} holds no image named CASE_0000.ENDING")
    cases = []
    for (case, ending), channels in images.items():
        label = labels / f"{case}{ending}"
        if sorted(channels) != list(range(n_channels or len(channels))):
            wanted = "one after the other from 0000" if n_channels is None else f"0000 to {n_channels - 1:04d}"
            raise ReadError(f"case {case!r} has the channels {sorted(channels)} in {folder}, wanted are {wanted}")
        if not label.is_file():
            raise ReadError(f"case {case!r} has no label map {label}")
        cases.append((case, tuple(channels[number] for number in sorted(channels)), label))
    return cases


def _name_and_ending(file: Path) -> tuple[str, str]:
    ending = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
    return file.name.removesuffix(ending), ending

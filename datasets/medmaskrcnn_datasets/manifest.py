"""The one form in which labelled scans reach training: a JSON file that names images, label maps and instances.

Every adapter of this package writes it. ``label`` is a map of instances on the image's grid; an instance also holds
the voxels of every instance whose ``part_of`` names its value, so a liver's mask includes its tumours.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmaskrcnn_datasets.files import write_bytes

VERSION = 1
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class ManifestInstance:
    """One object of a case: its voxel value, its class, and the value of the object it is part of."""

    value: int
    class_name: str
    part_of: int | None = None


@dataclass(frozen=True)
class ManifestCase:
    """One labelled scan.

    Attributes:
        id: Name, unique in the manifest.
        patient: Whose it is; scans of one patient belong in one split.
        image, label: Paths, relative to the manifest's folder or absolute.
        split: Which set it belongs to, or ``None`` if that is still open.
        instances: What the label map's values mean, by rising value.
    """

    id: str
    patient: str
    image: str
    label: str
    split: Split | None
    instances: tuple[ManifestInstance, ...]


@dataclass(frozen=True)
class Manifest:
    """A set of labelled scans.

    Raises:
        ValueError: if two cases share an id, a patient lies in two splits, a value occurs twice in a case, a class
            is not among ``class_names`` or ``part_of`` names no instance of its case.
    """

    name: str
    modality: str | None
    licence: str
    class_names: tuple[str, ...]
    cases: tuple[ManifestCase, ...]

    def __post_init__(self) -> None:
        twice = [i for i, n in Counter(c.id for c in self.cases).items() if n > 1]
        if twice:
            raise ValueError(f"case ids must be unique, these occur twice: {twice}")
        splits: dict[str, Split | None] = {}
        for case in self.cases:
            if splits.setdefault(case.patient, case.split) != case.split:
                raise ValueError(
                    f"patient {case.patient!r} lies in two splits: {splits[case.patient]} and {case.split}"
                )
            _check_instances(case, self.class_names)

    def to_json(self) -> dict[str, Any]:
        """The manifest as the JSON object that is written."""
        return {
            "version": VERSION,
            "name": self.name,
            "modality": self.modality,
            "licence": self.licence,
            "class_names": list(self.class_names),
            "cases": [
                {
                    "id": case.id,
                    "patient": case.patient,
                    "image": case.image,
                    "label": case.label,
                    "split": case.split,
                    "instances": [
                        {"value": i.value, "class": i.class_name, "part_of": i.part_of} for i in case.instances
                    ],
                }
                for case in self.cases
            ],
        }


def write_manifest(manifest: Manifest, path: Path | str) -> Path:
    """Write the manifest as JSON; the same manifest gives the same bytes.

    Raises:
        OutputError: if the file cannot be written.
    """
    return write_bytes(path, (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n").encode())


def _check_instances(case: ManifestCase, class_names: tuple[str, ...]) -> None:
    values = [i.value for i in case.instances]
    if len(set(values)) != len(values) or any(v < 1 for v in values):
        raise ValueError(f"case {case.id!r}: instance values must be distinct and positive, got {values}")
    for instance in case.instances:
        if instance.class_name not in class_names:
            raise ValueError(f"case {case.id!r}: unknown class {instance.class_name!r}, known are {class_names}")
        if instance.part_of is not None and instance.part_of not in values:
            raise ValueError(
                f"case {case.id!r}: instance {instance.value} is part of {instance.part_of}, which is not there"
            )

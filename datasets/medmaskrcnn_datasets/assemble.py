"""The steps common to all adapters: assign patients to splits, convert the cases, write the manifest."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.files import make_folder
from medmaskrcnn_datasets.manifest import located, write_manifest
from medmaskrcnn_datasets.splits import SplitRule

CountProgress = Callable[[int, int], None]
LabelFiles = tuple[tuple[Path, ...], tuple[ManifestInstance, ...]]
"""Label maps of one case, and the meaning of their values."""


@dataclass(frozen=True, eq=False)
class FoundCase:
    """A case that an adapter found, before its labels are read.

    Attributes:
        id: Unique in the data set, usable as a file name.
        image: One file (or series folder), or several sequences on one grid.
        convert: Reads and returns the labels, given the folder for label maps.
        patient: Its patient; by default ``patient_of`` the id.
    """

    id: str
    image: tuple[Path, ...]
    convert: Callable[[Path], LabelFiles]
    patient: str | None = None


@dataclass(frozen=True, eq=False)
class FoundDataset:
    """A data set that an adapter found.

    Attributes:
        name, modality, licence: As written to the manifest.
        class_names: In order; if empty, those that occur, sorted by name.
        cases: At least one.
    """

    name: str
    modality: str | None
    licence: str
    class_names: tuple[str, ...]
    cases: tuple[FoundCase, ...]


def assemble(
    found: FoundDataset,
    out_dir: Path | str,
    *,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Convert every case and write ``manifest.json``.

    Args:
        found: The cases.
        out_dir: Gets the manifest, and label maps in ``labels/`` where the data set's own cannot be used.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id, for cases without one; by default each is a patient of its own.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError: if cases cannot be read or two have the same id; the message lists them all.
        ValueError: if ``splits`` names unknown patients.
        OutputError: if ``out_dir`` cannot be written.
    """
    twice = sorted(name for name, n in Counter(case.id for case in found.cases).items() if n > 1)
    if twice:
        raise ReadError(f"{found.name}: several cases have one name: {', '.join(twice)}. Give each its own")
    patients = {case.id: case.patient or (patient_of or str)(case.id) for case in found.cases}
    split_of = splits.assign(patients.values()) if splits else {}
    fold_of = splits.fold_of(patients.values()) if splits else {}
    target = make_folder(out_dir).resolve()
    cases: list[ManifestCase] = []
    failed: list[str] = []
    for done, case in enumerate(found.cases, start=1):
        try:
            labels, instances = case.convert(target / "labels")
        except ReadError as error:
            failed.append(error.reason)
            continue
        patient = patients[case.id]
        cases.append(
            ManifestCase(
                id=case.id,
                patient=patient,
                image=_one_or_many([located(path, target) for path in case.image]),
                label=_one_or_many([located(path, target) for path in labels]) if labels else None,
                split=split_of.get(patient),
                fold=fold_of.get(patient),
                instances=instances,
            )
        )
        if progress:
            progress(done, len(found.cases))
    if failed:
        listed = "\n".join(f"  - {text}" for text in failed)
        raise ReadError(f"{found.name}: {len(failed)} of {len(found.cases)} cases cannot be read\n{listed}")
    occurring = sorted({i.class_name for case in cases for i in case.instances if i.class_name is not None})
    manifest = Manifest(
        name=found.name,
        modality=found.modality,
        licence=found.licence,
        class_names=found.class_names or tuple(occurring),
        cases=tuple(cases),
    )
    return write_manifest(manifest, target / "manifest.json")


def patient_by(pattern: str) -> Callable[[str], str]:
    """The patient of a case by a regular expression: the match of its first group, or else the whole match.

    Raises:
        ValueError: if it is not a regular expression; and, when called, if it does not match the case.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--patient must be a regular expression, got {pattern!r}: {error}") from None

    def patient_of(case: str) -> str:
        match = compiled.search(case)
        text = (match.group(1) if compiled.groups else match.group()) if match else None
        if not text:
            raise ValueError(f"--patient {pattern!r} matches nothing in the case {case!r}")
        return text

    return patient_of


def stem_of(path: Path) -> str:
    """A file's name without its extension; ``.nii.gz`` counts as one."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def json_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ReadError: if it is missing, not JSON or not an object; ``what`` says what it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}. Is this {what}?") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReadError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def modality_of(stated: object) -> str | None:
    """The DICOM modality of a data set's channel names: ``"MR"`` for ``{"0": "FLAIR", "1": "T1w"}``.

    ``None`` for other names and mixtures.
    """
    words = [str(v).upper() for v in (stated.values() if isinstance(stated, dict) else [stated])]
    known = {next((name for name, marks in _MODALITIES.items() if w.startswith(marks)), None) for w in words}
    return known.pop() if len(known) == 1 else None


_MODALITIES = {
    "MR": ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "PD", "SWI"),
    "CT": ("CT",),
    "PT": ("PET", "PT", "SUV"),
}


def _one_or_many(paths: Sequence[str]) -> str | tuple[str, ...]:
    return paths[0] if len(paths) == 1 else tuple(paths)

"""The steps common to all adapters: assign patients to splits, convert the cases, write the manifest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, Split
from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.files import make_folder
from medmaskrcnn_datasets.case_table import CaseTable, class_named
from medmaskrcnn_datasets.manifest import located, write_manifest
from medmaskrcnn_datasets.patients import patients_by_name
from medmaskrcnn_datasets.splits import SplitRule

_LOG = logging.getLogger(__name__)

CountProgress = Callable[[int, int], None]
OnEvent = Callable[[str], None]
"""Called with one sentence about what was assumed or found."""

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
        split: The split it lies in as the data set is laid out, ``train/``, ``valid/``.
        annotated: Classes that were annotated, by their names in the manifest; ``None``: all.
    """

    id: str
    image: tuple[Path, ...]
    convert: Callable[[Path], LabelFiles]
    patient: str | None = None
    split: Split | None = None
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class FoundDataset:
    """A data set that an adapter found.

    Attributes:
        name, modality, licence: As written to the manifest.
        class_names: In order; if empty, those that occur, sorted by name.
        cases: At least one.
        table: What ``cases.csv`` says of the cases.
        channel_names: Names of the channels of several sequences, in order; empty if they are unknown or one.
        renamed: Names of classes as the data set writes them, and their names in the manifest (empty: left out).
        left_out: Sentences about what the data set holds and no case has; told, and written to the manifest.
    """

    name: str
    modality: str | None
    licence: str
    class_names: tuple[str, ...]
    cases: tuple[FoundCase, ...]
    table: CaseTable | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def assemble(
    found: FoundDataset,
    out_dir: Path | str,
    *,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Convert every case and write ``manifest.json``.

    Args:
        found: The cases.
        out_dir: Gets the manifest, and label maps in ``labels/`` where the data set's own cannot be used.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided. Splits that the data
            set states itself hold where ``splits`` is ``None``, says nothing, or is only a fallback.
        patient_of: Patient of a case id; by default as the table of cases says, else as the adapter found, else as the
            names show (slices of one scan), else each case is a patient of its own.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError: if cases cannot be read, two have the same id, or the table of cases contradicts them; the message
            lists them all.
        ValueError: if ``splits`` names unknown patients.
        OutputError: if ``out_dir`` cannot be written.
    """
    tell = on_event or _LOG.warning
    twice = sorted(name for name, n in Counter(case.id for case in found.cases).items() if n > 1)
    if twice:
        raise ReadError(f"{found.name}: several cases have one name: {', '.join(twice)}. Give each its own")
    for text in found.left_out:
        tell(text)
    if found.table is not None:
        for text in found.table.about(case.id for case in found.cases):
            tell(text)
    patients = _patients(found, splits, patient_of, tell)
    stated = _stated_splits(found, splits, tell)
    split_of = splits.assign(patients.values()) if splits and not stated else {}
    fold_of = splits.fold_of(patients.values()) if splits and not stated else {}
    target = make_folder(out_dir).resolve()
    cases: list[ManifestCase] = []
    failed: list[str] = []
    for done, case in enumerate(found.cases, start=1):
        patient = patients[case.id]
        try:
            labels, instances = case.convert(target / "labels")
            annotated = _annotated(found, case, instances)
        except ReadError as error:
            failed.append(error.reason)
            continue
        cases.append(
            ManifestCase(
                id=case.id,
                patient=patient,
                image=_one_or_many([located(path, target) for path in case.image]),
                label=_one_or_many([located(path, target) for path in labels]) if labels else None,
                split=stated.get(case.id) if stated else split_of.get(patient),
                fold=fold_of.get(patient),
                case_labels=dict(found.table.row(case.id).labels) if found.table else {},
                instances=instances,
                annotated=annotated,
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
        channel_names=found.channel_names,
        left_out=found.left_out,
        cases=tuple(cases),
    )
    return write_manifest(manifest, target / "manifest.json")


def _patients(
    found: FoundDataset, splits: SplitRule | None, patient_of: Callable[[str], str] | None, tell: OnEvent
) -> dict[str, str]:
    """The patient of each case."""
    ids = [case.id for case in found.cases]
    if patient_of is not None:
        return {case.id: case.patient or patient_of(case.id) for case in found.cases}
    stated = {
        case.id: (found.table.row(case.id).patient if found.table else None) or case.patient for case in found.cases
    }
    by_name = {} if any(stated.values()) else patients_by_name(ids)
    if splits is not None and not {*splits.test, *splits.val, *splits.train} <= set(by_name.values()):
        by_name = {}  # the splits name cases
    if by_name:
        example = next(iter(by_name))
        tell(
            f"{len(ids)} cases are taken to be of {len(set(by_name.values()))} patients by their names: "
            f"{example} is of the patient {by_name[example]}"
        )
    return {case: stated[case] or by_name.get(case, case) for case in ids}


def _stated_splits(found: FoundDataset, splits: SplitRule | None, tell: OnEvent) -> dict[str, Split | None]:
    """The split of each case as the data set itself says; empty if it does not, or is overruled."""
    if splits is not None and not splits.fallback and splits != SplitRule():
        return {}
    stated = {case.id: (found.table.row(case.id).split if found.table else None) or case.split for case in found.cases}
    if not any(stated.values()):
        return {}
    counts = ", ".join(f"{n} cases {split or 'open'}" for split, n in Counter(stated.values()).items())
    tell(f"the splits are the data set's own: {counts}")
    return stated


def _annotated(found: FoundDataset, case: FoundCase, instances: Sequence[ManifestInstance]) -> tuple[str, ...] | None:
    """Classes annotated in a case, by their names in the manifest.

    Raises:
        ReadError: if the table names an unknown class, or the labels hold one that it does not name.
    """
    if found.table is None or found.table.row(case.id).annotated is None:
        return case.annotated
    words = found.table.row(case.id).annotated or ()
    names = {name: name for name in found.class_names} | dict(found.renamed)
    classes = {word: class_named(word, names) for word in words}
    unknown = [word for word, name in classes.items() if name is None]
    if unknown:
        raise ReadError(
            f"case {case.id!r}: {found.table.path.name} names annotated classes {unknown}; there are "
            f"{', '.join(found.class_names)}"
        )
    annotated = tuple(dict.fromkeys(name for name in classes.values() if name))
    held = {i.class_name for i in instances if i.class_name is not None and not i.ignore}
    if not held <= set(annotated):
        raise ReadError(
            f"case {case.id!r}: the labels hold {', '.join(sorted(held - set(annotated)))}, which "
            f"{found.table.path.name} does not name as annotated"
        )
    return annotated


def modality_of(stated: object) -> str | None:
    """The DICOM modality of a data set's channel names: ``"MR"`` for ``{"0": "FLAIR", "1": "T1w"}``.

    ``None`` for other names and mixtures.
    """
    words = [str(v).upper() for v in (stated.values() if isinstance(stated, dict) else [stated])]
    known = {next((name for name, marks in _MODALITIES.items() if w.startswith(marks)), None) for w in words}
    return known.pop() if len(known) == 1 else None


def sequences_of(stated: object) -> tuple[str, ...]:
    """Names of several channels in the order of their numbers, of ``{"0": "FLAIR", "1": "T1w"}``.

    None for one channel, or for names that do not tell the channels apart.
    """
    if not isinstance(stated, dict) or not all(str(number).isdigit() for number in stated):
        return ()
    names = tuple(str(stated[number]).strip() for number in sorted(stated, key=lambda key: int(key)))
    return names if len(names) > 1 and all(names) and len({n.casefold() for n in names}) == len(names) else ()


_MODALITIES = {
    "MR": ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "PD", "SWI"),
    "CT": ("CT",),
    "PT": ("PET", "PT", "SUV"),
}


def _one_or_many(paths: Sequence[str]) -> str | tuple[str, ...]:
    return paths[0] if len(paths) == 1 else tuple(paths)

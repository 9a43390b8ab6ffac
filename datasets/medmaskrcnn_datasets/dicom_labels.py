"""Adapter for DICOM folders from a hospital or archive: series, and RTSTRUCT or SEG objects that label them.

An object labels the series that it references, else one with its frame of reference. Scans and labels are written as
NIfTI, without anything that identifies the patient.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.io.discover import FoundScan, find_scans
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.io.labels.read import load_labels
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, LabelFiles, OnEvent, assemble
from medmaskrcnn_datasets.case_table import read_case_table
from medmaskrcnn_datasets.label_files import write_label_maps
from medmaskrcnn_datasets.splits import SplitRule

_LOG = logging.getLogger(__name__)

_LABEL_KINDS = ("RTSTRUCT", "SEG")


@dataclass(frozen=True)
class _LabelObject:
    """An RTSTRUCT or SEG: the series and frames of reference that it references, and its patient."""

    path: Path
    series: frozenset[str]
    frames: frozenset[str]
    patient: str


@dataclass(frozen=True, eq=False)
class _LabelledSeries:
    """A scan and the objects that label it."""

    scan: FoundScan
    labels: tuple[_LabelObject, ...]


def dicom_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    modality: str | None = None,
    classes: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
    licence: str = "unknown",
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for a folder of DICOM with RTSTRUCT or SEG.

    Args:
        folder: Many patients and series, nested in any way; it is only read.
        out_dir: Gets ``manifest.json``, scans in ``images/`` and label maps in ``labels/``.
        modality: Modality of the series to use, ``"MR"``; needed if there are several.
        classes: Regions or segments to use, by their new names; empty: all.
        rename: New names of regions, ``{"GTV_Mass": "tumour"}``; several may share one, an empty one leaves it out.
        name: Name of the data set; by default the folder's.
        licence: Licence of the data.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id. By default: the first folder below ``folder`` where each holds one patient,
            else a pseudonym made from the Patient ID.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. A case's id is its series' folder below ``folder`` with ``_`` for ``/``. Series without
        labels are left out; labels whose series is missing are told and named in the manifest's ``left_out``.

    Raises:
        ReadError: if there is no labelled series, there are several modalities and none is chosen, or one cannot be
            read.
        ValueError: if ``splits`` names unknown patients.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    target = Path(out_dir).resolve()
    tell = on_event or _LOG.warning
    series, left_out = labelled_series(root, tell)
    chosen, kind = _of_modality(root, series, modality)
    ids = _case_ids(root, chosen)
    patients = [None] * len(chosen) if patient_of else _patients(root, chosen)
    cases = tuple(
        FoundCase(
            case,
            (target / "images" / f"{case}.nii.gz",),
            _converter(case, one, target / "images" / f"{case}.nii.gz", classes, rename or {}, tell),
            patient,
        )
        for case, one, patient in zip(ids, chosen, patients, strict=True)
    )
    table = read_case_table(root, class_names=tuple(classes))
    found = FoundDataset(name or root.name, kind, licence, tuple(classes), cases, table, left_out=left_out)
    return assemble(found, target, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)


def labelled_series(root: Path, tell: OnEvent) -> tuple[list[_LabelledSeries], tuple[str, ...]]:
    """Scans below a folder that an RTSTRUCT or SEG labels, by path, and a sentence about each that labels none.

    Raises:
        ReadError: if there is none.
    """
    found = find_scans(root)
    scans = [one for one in found if one.role == "scan" and one.info.format == "DICOM"]
    objects = [_label_object(Path(one.info.path)) for one in found if one.info.kind in _LABEL_KINDS]
    by_scan: dict[int, list[_LabelObject]] = defaultdict(list)
    left_out = []
    for one in objects:
        index = _labelled(one, scans, tell)
        if index is None:
            left_out.append(f"{_below(root, one.path)} labels a series that is not in {root.name}; it is left out")
        else:
            by_scan[index].append(one)
    if not by_scan:
        raise ReadError(
            f"{root} holds no labelled series: {len(scans)} DICOM scans and {len(objects)} RTSTRUCT or SEG objects "
            "that label none of them"
        )
    return [_LabelledSeries(scans[index], tuple(by_scan[index])) for index in sorted(by_scan)], tuple(left_out)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _label_object(path: Path) -> _LabelObject:
    with convert_read_errors(path, "DICOM"):
        dataset = dcmread(path, stop_before_pixels=True, force=True)
        series = {str(one.SeriesInstanceUID) for one in dataset.get("ReferencedSeriesSequence") or []}
        frames = {str(dataset.FrameOfReferenceUID)} if dataset.get("FrameOfReferenceUID") else set()
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
            frames |= {str(frame.FrameOfReferenceUID)} if frame.get("FrameOfReferenceUID") else set()
            series |= _series_of_frame(frame)
        return _LabelObject(path, frozenset(series), frozenset(frames), str(dataset.get("PatientID") or ""))


def _series_of_frame(frame: Dataset) -> set[str]:
    """RT Referenced Series Sequence (3006,0014) of each RT Referenced Study (3006,0012)."""
    return {
        str(series.SeriesInstanceUID)
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
        if series.get("SeriesInstanceUID")
    }


def _labelled(one: _LabelObject, scans: Sequence[FoundScan], tell: OnEvent) -> int | None:
    """The scan that an object labels: one that it references, else the nearest in the folder tree with its frame."""
    candidates = [i for i, scan in enumerate(scans) if scan.info.series_uid in one.series]
    if not candidates and not one.series:
        candidates = [i for i, scan in enumerate(scans) if _frame(scan) in one.frames]
    if len(candidates) > 1:
        tell(f"{one.path} fits {len(candidates)} scans; the nearest in the folders is taken")
    parts = one.path.parts
    return max(candidates, key=lambda i: (_common(parts, Path(scans[i].info.path).parts), -i), default=None)


def _frame(scan: FoundScan) -> str | None:
    try:
        return scan.read().provenance.frame_of_reference_uid
    except ReadError:
        return None


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of leading folders that two paths share."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _of_modality(
    root: Path, series: list[_LabelledSeries], modality: str | None
) -> tuple[list[_LabelledSeries], str | None]:
    counts = Counter(one.scan.info.modality for one in series)
    there = ", ".join(f"{kind or 'unknown'} ({n})" for kind, n in counts.most_common())
    if modality is None:
        if len(counts) > 1:
            raise ReadError(
                f"{root} holds labelled series of several kinds: {there}. Choose one: "
                f"python -m medmaskrcnn_datasets dicom {root} -o OUT --modality {counts.most_common(1)[0][0]}"
            )
        return series, next(iter(counts))
    chosen = [one for one in series if one.scan.info.modality == modality]
    if not chosen:
        raise ReadError(f"{root} holds no labelled series of the modality {modality}; there are {there}")
    return chosen, modality


def _case_ids(root: Path, series: Sequence[_LabelledSeries]) -> list[str]:
    """Case id of each series: its folder below the root, numbered if it holds several."""
    names = []
    for one in series:
        path = Path(one.scan.info.path)
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        names.append("_".join(inside.with_suffix("").parts if path.is_file() else inside.parts) or root.name)
    counts = Counter(names)
    seen: Counter[str] = Counter()
    ids = []
    for name in names:
        seen[name] += 1
        ids.append(f"{name}_{seen[name]}" if counts[name] > 1 else name)
    return ids


def _patients(root: Path, series: Sequence[_LabelledSeries]) -> list[str | None]:
    """The first folder below the root if folders and patients are one to one, else pseudonyms of Patient IDs."""
    folders = [next(iter(Path(one.scan.info.path).relative_to(root).parts), "") for one in series]
    stated = [one.labels[0].patient for one in series]
    pairs = set(zip(folders, stated, strict=True))
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    if "" not in folders and (one_to_one or not all(stated)):
        return list(folders)
    return [f"patient-{hashlib.sha256(text.encode()).hexdigest()[:10]}" for text in stated]


def _converter(
    case: str,
    series: _LabelledSeries,
    image: Path,
    classes: Collection[str],
    rename: Mapping[str, str],
    tell: OnEvent,
) -> Callable[[Path], LabelFiles]:
    def convert(folder: Path) -> LabelFiles:
        volume = series.scan.read()
        if volume.array.shape[0] != 1:
            raise ReadError(f"case {case!r}: {series.scan.info.path} has {volume.array.shape[0]} channels, not one")
        objects = _objects(case, series.labels, volume, rename, tell)
        write_nifti(volume.array[0], volume.grid, image)
        return write_label_maps(
            [o for o in objects if not classes or o.class_name in classes], volume.grid, folder / case
        )

    return convert


def _objects(
    case: str, labels: Sequence[_LabelObject], volume: Volume, rename: Mapping[str, str], tell: OnEvent
) -> list[LabelledObject]:
    """Objects in all RTSTRUCT and SEG of a series; if several have the same name, those of the first."""
    found: list[LabelledObject] = []
    for one in labels:
        read = load_labels(one.path, volume)
        for note in read.notes:
            tell(f"case {case}: {one.path}: {note}")
        earlier = {o.class_name for o in found}
        instances = read.instances
        for i, mask in enumerate(instances.masks):
            name = instances.class_names[instances.labels[i]]
            if name in earlier:
                tell(f"case {case}: {name!r} of {one.path} was labelled before; left out")
            elif not mask.is_empty:
                found.append(LabelledObject(name, mask))
    renamed = [replace(o, class_name=rename.get(o.class_name, o.class_name)) for o in found]
    return [o for o in renamed if o.class_name]

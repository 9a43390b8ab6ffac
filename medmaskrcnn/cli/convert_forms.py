"""The forms that labels come in and go out as: the work behind ``convert``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread

from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.export.coco import write_coco
from medmaskrcnn.export.deidentify import deidentified_result
from medmaskrcnn.export.dicom_files import DICOM_FORMATS, write_dicom_object
from medmaskrcnn.export.dicom_object import AlgorithmType
from medmaskrcnn.export.nifti import covered_voxels, write_label_map
from medmaskrcnn.export.source_series import read_source
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.dicom.header import read_header
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.io.labels.coco import read_coco
from medmaskrcnn.io.labels.label_maps import whole_numbers
from medmaskrcnn.io.labels.read import load_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.report.html_report import write_report
from medmaskrcnn.report.instance_table import write_table
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import MapKind
from medmaskrcnn.structures.store import load_case, save_case
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import replacing
from medmaskrcnn.system.version import __version__

_MAPS = frozenset({"NIfTI", "NRRD", "MetaImage", "PNG", "TIFF"})
_NO_MODEL = "labels"


@dataclass(frozen=True, eq=False)
class ConvertedLabels:
    """Labels on their way.

    Attributes:
        instances: On the scan's grid.
        scan: The scan, where the user gave one.
        result: What ``instances.npz`` held, if they came from one.
        algorithm: How they came about, as far as their file tells; drawn by a person otherwise.
        notes: What reading took, one sentence each.
    """

    instances: Instances
    scan: Volume | None
    result: CaseResult | None = None
    algorithm: AlgorithmType = "MANUAL"
    notes: tuple[str, ...] = ()


def read_any_labels(
    path: Path, scan: Volume | None, *, names: Mapping[int, str] | None, kind: MapKind
) -> ConvertedLabels | None:
    """Labels in any form; ``None`` if the path holds a scan and no scan was given that it could label.

    Raises:
        ReadError: if the labels are damaged, belong to another scan, or need a scan and none was given.
    """
    if not path.exists():
        raise ReadError(f"{path} does not exist. Check the spelling")
    if path.is_file() and zipfile.is_zipfile(path):
        if scan is not None:
            load_labels(path, scan)  # that they belong together is checked there
        result = load_case(path)
        return ConvertedLabels(result.instances, scan, result, "AUTOMATIC")
    if path.suffix.lower() == ".json":
        return ConvertedLabels(read_coco(path, _needed(scan, path).grid, picture=path.stem), scan)
    what = sniff(path) if path.is_file() else None
    if what in _MAPS and (scan is not None or names is not None or _looks_like_labels(path)):
        found = load_labels(path, read_volume(path) if scan is None else scan, names=names, kind=kind)
        return ConvertedLabels(found.instances, scan, notes=found.notes)
    if what == "DICOM" and read_header(path).non_image is not None:
        found = load_labels(path, _needed(scan, path))
        return ConvertedLabels(found.instances, scan, algorithm=_algorithm(path), notes=found.notes)
    if scan is not None:
        found = load_labels(path, scan, names=names, kind=kind)
        return ConvertedLabels(found.instances, scan, notes=found.notes)
    return None


def _needed(scan: Volume | None, path: Path) -> Volume:
    if scan is None:
        raise ReadError(f"{path} does not tell its own grid. Give the scan that it belongs to with --image")
    return scan


def _looks_like_labels(path: Path) -> bool:
    """Whether an image holds few whole numbers, as label maps do and scans do not."""
    array = whole_numbers(read_volume(path).array)
    if array is None or array.shape[0] != 1:
        return False
    values = np.unique(array)
    return len(values) <= 256 and bool((array == 0).mean() > 0.2)


def _algorithm(path: Path) -> AlgorithmType:
    """How the segments or regions of a DICOM object came about: its first one speaks for all."""
    dataset = dcmread(path, stop_before_pixels=True, force=True)
    for sequence, keyword in (
        ("SegmentSequence", "SegmentAlgorithmType"),
        ("StructureSetROISequence", "ROIGenerationAlgorithm"),
    ):
        for item in dataset.get(sequence) or ():
            kind = item.get(keyword)
            if kind in ("AUTOMATIC", "SEMIAUTOMATIC"):
                return "AUTOMATIC" if kind == "AUTOMATIC" else "SEMIAUTOMATIC"
    return "MANUAL"


def write_labels(
    labels: ConvertedLabels, target: Path, form: str, *, label_map: bool, deidentify: bool
) -> tuple[str, ...]:
    """Write labels; nothing half-written is left behind.

    Args:
        labels: The labels.
        target: The file.
        form: ``nifti``, ``seg``, ``rtstruct``, ``sr``, ``npz``, ``coco``, ``csv`` or ``html``.
        label_map: Let a SEG be a LABELMAP where nothing overlaps.
        deidentify: See :func:`medmaskrcnn.write_result`.

    Returns:
        Notes on what the file lacks, one sentence each.

    Raises:
        OutputError: if the form needs the scan and there is none, or the file cannot be written.
    """
    result = labels.result or _as_result(labels)
    notes: tuple[str, ...] = ()
    if form in DICOM_FORMATS:
        source = read_source(_scan(labels, form), f"a DICOM {form.upper()}", without_identity=deidentify)
        notes = source.notes
    if deidentify:
        result = deidentified_result(result)

    with replacing(target) as path:
        if form in DICOM_FORMATS:
            write_dicom_object(form, result, source, path, label_map=label_map, algorithm=labels.algorithm)
        elif form == "npz":
            save_case(result, path)
        elif form == "csv":
            with path.open("w", encoding="utf-8", newline="") as text:
                write_table(result, text)
        else:
            with path.open("wb") as stream:
                if form == "nifti":
                    notes = covered_voxels(result.instances)
                    write_label_map(result, stream)
                elif form == "coco":
                    write_coco(result, stream)
                else:
                    write_report(result, _scan(labels, form), stream)
    return notes


def _scan(labels: ConvertedLabels, form: str) -> Volume:
    if labels.scan is None:
        raise OutputError(f"{form} needs the scan that the labels belong to. Give it with --image")
    return labels.scan


def _as_result(labels: ConvertedLabels) -> CaseResult:
    """Labels as a result of no model, measured; intensities are unknown without the scan."""
    found, scan = labels.instances, labels.scan
    if scan is not None:
        measured = measure_instances(scan, found)
    else:
        nothing = np.broadcast_to(np.zeros(1, np.uint8), (1, *found.grid.shape))
        sizes = measure_instances(Volume(nothing, found.grid), found)
        measured = tuple(replace(m, mean_intensity=None, min_intensity=None, max_intensity=None) for m in sizes)
    origin = None if scan is None else scan.provenance
    record = RunRecord(
        software=f"medmaskrcnn {__version__}",
        model_name=_NO_MODEL,
        model_sha256="",
        model_licence="",
        device="cpu",
        precision="fp32",
        settings={"converted": True},
        source={}
        if scan is None or origin is None
        else {
            "format": origin.format,
            "modality": scan.modality,
            "study_uid": origin.study_uid,
            "series_uid": origin.series_uid,
            "frame_of_reference_uid": origin.frame_of_reference_uid,
        },
    )
    return CaseResult(found, 0.0, measured, record)

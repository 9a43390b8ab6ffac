"""The three steps of a worker for one case: read, segment, write. Imports torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmaskrcnn.batch_runs.find import CINE
from medmaskrcnn.batch_runs.reasons import without_paths
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.batch_runs.thumbnail import write_thumbnail
from medmaskrcnn.errors import ModelFileError, ReadError, UnwrittenFormatsError
from medmaskrcnn.export.check import check_formats
from medmaskrcnn.export.dicom_files import holds_identity
from medmaskrcnn.export.write import FILE_NAMES, write_result
from medmaskrcnn.hub.loaded_model import load_as_asked
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.track_time import read_cine, reading_options
from medmaskrcnn.io.discover import FoundScan, find_scans, scans_among
from medmaskrcnn.io.sequences import stack_sequences
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import PARTIAL, replacing_folder
from medmaskrcnn.system.paths import path_below


class Steps:
    """The three steps with a loaded model.

    Args:
        model: Path of the model file.
        sha256: Expected hash of the file.
        options: Device, precision and engine.

    Raises:
        ModelFileError: if the model cannot be read or is not the one that the batch was started with.
    """

    def __init__(self, model: str, sha256: str, options: SegmentOptions) -> None:
        self.model = load_as_asked(model, options)
        if self.model.sha256 != sha256:
            raise ModelFileError(f"{model} has changed since the batch began; start it again")

    def read(self, task: Task, _: None = None) -> Volume:
        """Read the scan, and raise early if nothing that is asked for could be written."""
        reading = reading_options(task.options)
        if task.part == CINE:
            volume = read_cine(scans_among(map(Path, task.files)))
        elif task.sequences:
            volume = stack_sequences({n: _scan_of(one).read(reading) for n, one in _sequences_of(task).items()})
        else:
            volume = _scan_of(task).read(reading)
        return check_formats(volume, task.output)

    def segment(self, task: Task, volume: Volume) -> tuple[CaseResult, Volume]:
        """Detect, segment and measure the instances."""
        result = segment(volume, self.model, options=task.options)
        return _without_sources(result, task), volume

    def write(self, task: Task, made: tuple[CaseResult, Volume]) -> dict[str, Any]:
        """Write the result into its folder, completely or not at all; returns its entries in the summary.

        A file that cannot be made of this scan is missing, and the entries name it.
        """
        result, volume = made
        out = Path(task.out)
        target, private = path_below(out, task.folder), holds_identity(task.output)
        unwritten: dict[str, str] = {}
        with replacing_folder(target, staging_in=out / PARTIAL, synced=True, private=private) as staging:
            try:
                write_result(result, volume, staging, options=task.output, tracks=task.options.track)
            except UnwrittenFormatsError as error:
                unwritten = {name: without_paths(reason, task.hidden) for name, reason in error.failed.items()}
            write_thumbnail(result, volume, staging)
        return _outcome(result, volume, unwritten)


def _sequences_of(task: Task) -> dict[str, Task]:
    """Each sequence of a case as a task of its own files."""
    first, parts = 0, {}
    for name, count in task.sequences:
        parts[name] = replace(task, files=task.files[first : first + count], part="", sequences=())
        first += count
    return parts


def _scan_of(task: Task) -> FoundScan:
    """The scan of a task.

    Raises:
        ReadError: if its files are missing or no longer form that one scan.
    """
    if task.archive is not None:
        path, number = task.archive
        scans = find_scans(Path(path), merge_series=task.options.merge_series)
        if number >= len(scans):
            raise ReadError(f"{path} holds other scans now; start the batch again to look it through")
        return scans[number]
    gone = [file for file in task.files if not Path(file).is_file()]
    if gone:
        raise ReadError(f"{gone[0]} is gone ({len(gone)} of {len(task.files)} files of the scan are)")
    among = scans_among(map(Path, task.files), merge_series=task.options.merge_series)
    scans = [scan for scan in among if scan.role in ("scan", "picture")]
    chosen = [scan for scan in scans if scan.part == task.part] or scans
    if len(chosen) != 1:
        raise ReadError(f"{task.about} and the other files make {len(chosen)} scans now; start the batch again")
    return chosen[0]


def _without_sources(result: CaseResult, task: Task) -> CaseResult:
    """The result with the paths in its notes and warnings replaced."""
    record = result.record
    notes = [without_paths(note, task.hidden) for note in record.source.get("notes", ())]
    warnings = tuple(without_paths(warning, task.hidden) for warning in record.warnings)
    return replace(result, record=replace(record, source={**record.source, "notes": notes}, warnings=warnings))


def _outcome(result: CaseResult, volume: Volume, unwritten: dict[str, str]) -> dict[str, Any]:
    found = result.instances
    counts = Counter(found.class_names[label] for label in found.labels)
    return {
        "counts": {name: counts[name] for name in found.class_names if counts[name]},
        "instances": len(found),
        "warnings": [*result.record.warnings, *(f"{FILE_NAMES[n]} not written: {why}" for n, why in unwritten.items())],
        "unwritten": sorted(unwritten),
        "out_of_domain": result.record.out_of_domain,
        "shape": list(volume.grid.shape),
    }

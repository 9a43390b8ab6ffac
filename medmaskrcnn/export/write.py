"""Writes a result's files to a folder.

All files are first written into a hidden folder inside the output folder and moved into place when the last one is
complete, so that a full disk leaves nothing half-written and an earlier run's files stay as they were. An export that
cannot be made of this scan or result (no DICOM series, an invalid UID) costs that file alone: the others are written,
and an error names it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from medmaskrcnn.errors import MedMaskRCNNError, MissingExtraError, OutputError, UnwrittenFormatsError
from medmaskrcnn.export.coco import write_coco
from medmaskrcnn.export.deidentify import deidentified_result, without_places
from medmaskrcnn.export.dicom_files import DICOM_FORMATS, holds_identity, write_dicom_object
from medmaskrcnn.export.dicom_object import AlgorithmType
from medmaskrcnn.export.meshes import mesh_names, write_mesh
from medmaskrcnn.export.nifti import write_label_map
from medmaskrcnn.export.occupied import list_files, listed_files, refuse_occupied, remove_stale
from medmaskrcnn.export.source_series import read_source
from medmaskrcnn.export.tracks import write_tracks
from medmaskrcnn.report.html_report import write_report
from medmaskrcnn.report.instance_table import write_table
from medmaskrcnn.report.preview import write_preview
from medmaskrcnn.report.result_document import result_document, run_document, to_json
from medmaskrcnn.settings import ALL_FORMATS, FORMATS, OutputOptions
from medmaskrcnn.settings.segment_options import options_from
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Provenance, Volume
from medmaskrcnn.system.files import make_folder, open_private, staging_folder

logger = logging.getLogger(__name__)

FILE_NAMES = {
    "instances": "instances.npz",
    "run": "run.json",
    "nifti": "labels.nii.gz",
    "csv": "instances.csv",
    "json": "result.json",
    "png": "preview.png",
    "seg": "segmentation.dcm",
    "rtstruct": "contours.dcm",
    "sr": "measurements.dcm",
    "coco": "coco.json",
    "stl": "meshes",
    "html": "report.html",
    "tracks": "tracks.csv",
}

_ALWAYS = ("instances", "run")

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up. Free some space or choose another folder",
    errno.EACCES: "no permission to write there. Choose another folder",
    errno.EPERM: "no permission to write there. Choose another folder",
    errno.EROFS: "the file system is read-only. Choose another folder",
    errno.EFBIG: "a file would be larger than the system allows. Choose another folder",
}


def write_result(
    result: CaseResult,
    volume: Volume,
    out_dir: str | os.PathLike[str],
    *,
    formats: Sequence[str] = FORMATS,
    label_map_seg: bool = False,
    deidentify: bool = False,
    paths_in_run: bool = True,
    options: OutputOptions | None = None,
    tracks: bool = False,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write a result's files into one folder, which is created if needed.

    DICOM objects, which say who the patient is, and ``run.json`` with its paths are for their owner alone (mode 0600),
    and so are folders created for DICOM objects (0700). Files of an earlier run on the same scan are replaced; its
    exports that are not requested now are removed, since they would belong to another result. What this program did not
    write stays.

    Args:
        result: The result.
        volume: The scan it belongs to.
        out_dir: The folder.
        formats: Any of :data:`ALL_FORMATS`.
        label_map_seg: Write the DICOM SEG as a LABELMAP, run-length encoded, where no two instances overlap.
        deidentify: Write no patient's name, ID or date into DICOM, hashes instead of UIDs into every file, and neither
            host nor path into ``run.json``; ``docs/dicom-out.md`` states the limits.
        paths_in_run: False leaves the scan's paths and the host out of ``run.json``.
        options: The four options above in one object, used in place of them.
        tracks: Write ``tracks.csv``, a table of every frame, for a cine series: several slices without a spacing.
        overwrite: Replace the result of another scan, and files of other programs that bear names of ours.

    Returns:
        Path of each file (``"stl"``: folder) written, by format; always includes ``"instances"`` and ``"run"``.

    Raises:
        ValueError: if a format is unknown or the scan is not the result's.
        UnwrittenFormatsError: if a file cannot be made of this scan or result, such as a DICOM object of a scan that is
            not a DICOM series. All other files are in place.
        OutputError: if the folder cannot be written to, or holds the result of another scan or other files of these
            names and ``overwrite`` is not set; nothing is left behind.
    """
    asked = options_from(
        options, OutputOptions, formats=formats, label_map_seg=label_map_seg, deidentify=deidentify,
        paths_in_run=paths_in_run,
    )  # fmt: skip
    chosen = _chosen(asked.formats, tracks=tracks and volume.grid.shape[0] > 1 and not volume.grid.spacing_known)
    if volume.grid != result.candidates.grid:
        raise ValueError(f"the result lies on grid {result.candidates.grid}, the scan on {volume.grid}")
    folder = Path(out_dir)
    targets = {name: folder / FILE_NAMES[name] for name in chosen}
    writers, failed = _writers(chosen, result, volume, asked)
    if not asked.paths_in_run:
        placeless = replace(result, run=without_places(result.run))
        writers["run"] = partial(_write_run, placeless, replace(volume, provenance=Provenance()))
    try:
        _refuse_unusable(folder, targets, volume)
        if not overwrite:
            refuse_occupied(folder, [target.name for target in targets.values()], volume)
        failed |= _write_all(folder, targets, writers, private=holds_identity(asked))
    except OSError as error:
        raise OutputError(_message(folder, error)) from error
    files = {name: path for name, path in targets.items() if name not in failed}
    if failed:
        reasons = "; ".join(f"{FILE_NAMES[name]}: {reason}" for name, reason in failed.items())
        raise UnwrittenFormatsError(f"not written to {folder}: {reasons}. The other files are complete", files, failed)
    return files


def file_names(output: OutputOptions) -> list[str]:
    """Names of the files, and of the folder of meshes, that are written with some options."""
    return [FILE_NAMES[name] for name in _chosen(output.formats, tracks=False)]


def _writers(
    chosen: Sequence[str], result: CaseResult, volume: Volume, options: OutputOptions
) -> tuple[dict[str, Callable[[Path], None]], dict[str, str]]:
    """The function that writes each file, given its path, and why those without one cannot be written.

    The scan's headers are read once for all DICOM objects.
    """
    dicom = [name for name in chosen if name in DICOM_FORMATS]
    source, failed = None, {}
    if dicom:
        try:
            source = read_source(volume, f"a DICOM {dicom[0].upper()}", without_identity=options.deidentify)
        except MissingExtraError:
            raise
        except MedMaskRCNNError as error:
            failed = dict.fromkeys(dicom, error.reason)
    if options.deidentify:
        result = deidentified_result(result)
        volume = replace(volume, provenance=Provenance(volume.provenance.format))
    writers: dict[str, Callable[[Path], None]] = {}
    for name in chosen:
        if name in failed:
            continue
        if name in DICOM_FORMATS and source is not None:
            writers[name] = partial(
                write_dicom_object, name, result, source, label_map=options.label_map_seg, algorithm=_algorithm(result)
            )
        else:
            writers[name] = partial(_WRITERS[name], result, volume)
    return writers, failed


def _algorithm(result: CaseResult) -> AlgorithmType:
    """Changed thresholds are settings; decisions of a person on single instances make a result semiautomatic."""
    review = result.review
    return "SEMIAUTOMATIC" if review and (review.accepted or review.rejected or review.changed) else "AUTOMATIC"


def _write_all(
    folder: Path, targets: dict[str, Path], writers: dict[str, Callable[[Path], None]], *, private: bool
) -> dict[str, str]:
    """Write the files that have a writer; returns why some of them could not be made."""
    made = _missing_parents(folder)
    done = False
    failed: dict[str, str] = {}
    try:
        with _cause_of_errors():
            make_folder(folder, private=private)
        with staging_folder(folder) as staging:
            for name, write in writers.items():
                try:
                    write(staging / targets[name].name)
                except (OSError, MemoryError):
                    raise  # the disk or the machine, not this format
                except Exception as error:
                    if name in _ALWAYS:
                        raise
                    failed[name] = _why(name, error)
                    remove_stale(staging / targets[name].name, None)
            list_files(staging)
            _move_into_place(staging, folder, {name: targets[name] for name in writers if name not in failed})
        done = True
    finally:
        if not done:
            _remove_empty(made)
    return failed


def _why(name: str, error: Exception) -> str:
    """Why an export failed."""
    if isinstance(error, MedMaskRCNNError):
        return error.reason
    logger.error("%s could not be written", FILE_NAMES[name], exc_info=error)
    return f"internal error ({type(error).__name__})"


def _chosen(formats: Sequence[str], *, tracks: bool) -> list[str]:
    wanted = {*formats, "seg"} if "sr" in formats else set(formats)
    return [*_ALWAYS, *(name for name in ALL_FORMATS if name in wanted), *(["tracks"] if tracks else [])]


def _refuse_unusable(folder: Path, targets: dict[str, Path], volume: Volume) -> None:
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise OutputError(f"cannot write to {folder}: {place} is a file, not a folder. Choose another name.")
    inputs = {os.path.realpath(file) for file in volume.provenance.files}
    for target in targets.values():
        if target.is_dir() and not _is_ours(target):
            raise OutputError(f"cannot write {target}: a folder of that name is in the way.")
        if os.path.realpath(target) in inputs:
            raise OutputError(f"refused to write {target}: it is the scan itself. Choose another output folder.")


def _is_ours(target: Path) -> bool:
    """Whether a folder at an export's path holds nothing but meshes of an earlier run."""
    return target.name == FILE_NAMES["stl"] and all(p.suffix == ".stl" and p.is_file() for p in target.iterdir())


def _missing_parents(folder: Path) -> list[Path]:
    """Missing folders that have to be created for ``folder``, innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _move_into_place(staging: Path, folder: Path, targets: dict[str, Path]) -> None:
    if (folder / FILE_NAMES["instances"]).exists():  # an earlier run: its other exports are now stale
        listed = listed_files(folder)
        for name in set(FILE_NAMES) - set(targets):
            remove_stale(folder / FILE_NAMES[name], listed)
    for target in targets.values():
        if target.is_dir():
            remove_stale(target, None)
        (staging / target.name).replace(target)


def _message(folder: Path, error: OSError) -> str:
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"cannot write the result to {folder}: {reason}. Nothing was left half-written."


@contextmanager
def _cause_of_errors() -> Iterator[None]:
    """Raise the system's error that caused ours; :func:`write_result` words it for the whole result."""
    try:
        yield
    except OutputError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


def _write_instances(result: CaseResult, volume: Volume, path: Path) -> None:
    with _cause_of_errors():
        save_case(result, path)


def _write_run(result: CaseResult, volume: Volume, path: Path) -> None:
    with open_private(path) if volume.provenance.files else path.open("wb") as stream:  # paths often hold names
        stream.write(to_json(run_document(result, volume)).encode())


def _write_json(result: CaseResult, volume: Volume, path: Path) -> None:
    path.write_text(to_json(result_document(result, volume)), encoding="utf-8", newline="\n")


def _write_csv(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_table(result, stream)


def _write_nifti(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("wb") as stream:
        write_label_map(result, stream)


def _write_png(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("wb") as stream:
        write_preview(result, volume, stream)


def _write_coco(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("wb") as stream:
        write_coco(result, stream)


def _write_html(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("wb") as stream:
        write_report(result, volume, stream)


def _write_tracks(result: CaseResult, volume: Volume, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_tracks(result, None if volume.film is None else volume.film.pixel_mm, stream)


def _write_meshes(result: CaseResult, volume: Volume, path: Path) -> None:
    path.mkdir()
    for i, name in enumerate(mesh_names(result)):
        with (path / name).open("wb") as stream:
            write_mesh(result, i, stream)


_WRITERS: dict[str, Callable[[CaseResult, Volume, Path], None]] = {
    "instances": _write_instances,
    "run": _write_run,
    "nifti": _write_nifti,
    "csv": _write_csv,
    "json": _write_json,
    "png": _write_png,
    "coco": _write_coco,
    "stl": _write_meshes,
    "html": _write_html,
    "tracks": _write_tracks,
}

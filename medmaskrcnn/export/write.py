"""A result becomes a folder: either every file of it, or none.

All files are first written into a hidden folder inside the output folder and moved up only when the last one
is complete, so that a full disk leaves nothing half-written and an earlier run's files stay as they were.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.nifti import write_label_map
from medmaskrcnn.export.preview import write_preview
from medmaskrcnn.export.result_json import result_document, run_document, to_json
from medmaskrcnn.export.table import write_table
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Volume

FORMATS = ("nifti", "csv", "json", "png")
"""What can be asked for; ``instances.npz`` and ``run.json`` are always written."""

FILE_NAMES = {
    "instances": "instances.npz",
    "run": "run.json",
    "nifti": "labels.nii.gz",
    "csv": "instances.csv",
    "json": "result.json",
    "png": "preview.png",
}

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
) -> dict[str, Path]:
    """Write a result's files into one folder, which is made if need be.

    Files of an earlier run are replaced; those of its exports that are not asked for now are removed, since
    they would speak of another result.

    Args:
        result: The result.
        volume: The scan it belongs to.
        out_dir: The folder.
        formats: Any of :data:`FORMATS`.

    Returns:
        Path of each file written, by format; ``"instances"`` and ``"run"`` are always among them.

    Raises:
        ValueError: if a format is unknown or the scan is not the result's.
        OutputError: if the files cannot be written; then nothing is left of them.
    """
    chosen = _chosen(formats)
    if volume.grid != result.candidates.grid:
        raise ValueError(f"the result lies on grid {result.candidates.grid}, the scan on {volume.grid}")
    folder = Path(out_dir)
    targets = {name: folder / FILE_NAMES[name] for name in chosen}
    try:
        _refuse_unusable(folder, targets, volume)
        _write_all(result, volume, folder, targets)
    except OSError as error:
        raise OutputError(_message(folder, error)) from error
    return targets


def _write_all(result: CaseResult, volume: Volume, folder: Path, targets: dict[str, Path]) -> None:
    made = _missing_parents(folder)
    staging = folder / f".{uuid4().hex}.partial"
    done = False
    try:
        staging.mkdir(parents=True)
        for name, target in targets.items():
            _WRITERS[name](result, volume, staging / target.name)
        _move_into_place(staging, folder, targets)
        done = True
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not done:
            _remove_empty(made)


def _chosen(formats: Sequence[str]) -> list[str]:
    unknown = [name for name in formats if name not in FORMATS]
    if isinstance(formats, str) or unknown:
        raise ValueError(f"formats must be a list out of {', '.join(FORMATS)}, got {formats!r}")
    return ["instances", "run", *(name for name in FORMATS if name in formats)]


def _refuse_unusable(folder: Path, targets: dict[str, Path], volume: Volume) -> None:
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise OutputError(f"cannot write to {folder}: {place} is a file, not a folder. Choose another name.")
    inputs = {os.path.realpath(file) for file in volume.provenance.files}
    for target in targets.values():
        if target.is_dir():
            raise OutputError(f"cannot write {target}: a folder of that name is in the way.")
        if os.path.realpath(target) in inputs:
            raise OutputError(f"refused to write {target}: it is the scan itself. Choose another output folder.")


def _missing_parents(folder: Path) -> list[Path]:
    """Folders that making ``folder`` will make, innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _move_into_place(staging: Path, folder: Path, targets: dict[str, Path]) -> None:
    if (folder / FILE_NAMES["instances"]).exists():  # an earlier run of ours: its other exports are now stale
        for name in set(FILE_NAMES) - set(targets):
            (folder / FILE_NAMES[name]).unlink(missing_ok=True)
    for target in targets.values():
        (staging / target.name).replace(target)


def _message(folder: Path, error: OSError) -> str:
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"cannot write the result to {folder}: {reason}. Nothing was left half-written."


def _write_instances(result: CaseResult, volume: Volume, path: Path) -> None:
    try:
        save_case(result, path)
    except OutputError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


def _write_run(result: CaseResult, volume: Volume, path: Path) -> None:
    path.write_text(to_json(run_document(result, volume)), encoding="utf-8", newline="\n")


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


_WRITERS: dict[str, Callable[[CaseResult, Volume, Path], None]] = {
    "instances": _write_instances,
    "run": _write_run,
    "nifti": _write_nifti,
    "csv": _write_csv,
    "json": _write_json,
    "png": _write_png,
}

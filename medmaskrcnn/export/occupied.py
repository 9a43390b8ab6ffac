"""What already lies in a result's folder: nothing is replaced or removed that this program did not write there.

``run.json`` lists the files of a result with their hashes. A folder with the result of the same scan is written anew;
one with the result of another scan, or with somebody else's file under a name of ours, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medmaskrcnn.errors import OutputError, ReadError, Remedy
from medmaskrcnn.export.deidentify import deidentified_uid
from medmaskrcnn.report.result_document import to_json
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume

RESULT, RUN = "instances.npz", "run.json"
_CHUNK = 1 << 20


def refuse_occupied(folder: Path, names: Iterable[str], volume: Volume) -> None:
    """Refuse a folder in which something of another origin would be replaced; called before a scan is segmented, too.

    Args:
        folder: The output folder.
        names: Names of the files, and of the folder of meshes, that are to be written.
        volume: The scan.

    Raises:
        OutputError: if it holds the result of another scan, or files of these names that no result of ours lists.
    """
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return
    if not (folder / RESULT).exists():
        raise OutputError(
            f"{there[0]} is there already, and no result of this program lies beside it. Choose another folder",
            Remedy.OVERWRITE,
        )
    try:
        earlier = load_case(folder / RESULT)
    except ReadError as error:
        raise OutputError(
            f"{folder / RESULT} is there already and is no result that can be read. Choose another folder",
            Remedy.OVERWRITE,
        ) from error
    if not _is_of(earlier, _paths_of_input(folder), volume):
        raise OutputError(f"{folder} holds the result of another scan. Choose another folder", Remedy.OVERWRITE)
    listed = listed_files(folder)
    strange = [] if listed is None else [p for p in map(str, _all_files(there, folder)) if p not in listed]
    if strange:
        raise OutputError(
            f"{folder / strange[0]} is there already and was not written by this program. Choose another folder",
            Remedy.OVERWRITE,
        )


def list_files(folder: Path) -> None:
    """Add the files of a folder with their hashes to the ``run.json`` in it."""
    run = folder / RUN
    document = json.loads(run.read_text(encoding="utf-8"))
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != run)
    document["files"] = {p.relative_to(folder).as_posix(): _sha256(p) for p in files}
    run.write_text(to_json(document), encoding="utf-8", newline="\n")


def listed_files(folder: Path) -> dict[str, str] | None:
    """Hashes by name of the files that ``run.json`` lists; ``None`` if there is no list, as in results of 0.1.0."""
    listed = _run_document(folder).get("files")
    if not isinstance(listed, dict):
        return None
    return {str(name): str(value) for name, value in listed.items()}


def remove_stale(path: Path, listed: Mapping[str, str] | None) -> None:
    """Remove an export of an earlier run: a file, or the files of a folder, as far as they are what that run wrote."""
    for file in [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []:
        name = file.relative_to(path.parent).as_posix()
        ours = file.suffix == ".stl" or file == path if listed is None else listed.get(name) == _sha256(file)
        if file.is_file() and ours:
            file.unlink()
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _all_files(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Files among paths and below them, relative to a folder; ``run.json``, which lists the others, left out."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file.relative_to(folder) for file in files if file.is_file() and file.name != RUN]


def _is_of(earlier: CaseResult, paths: list[str], volume: Volume) -> bool:
    """Whether a result is of this scan, as far as both tell."""
    if earlier.candidates.grid != volume.grid:
        return False
    known, origin = earlier.record.source.get("series_uid"), volume.provenance.series_uid
    if known and origin:
        return known in (origin, deidentified_uid(origin))
    ours = [os.path.realpath(file) for file in volume.provenance.files]
    return not (paths and ours) or sorted(map(os.path.realpath, paths)) == sorted(ours)


def _paths_of_input(folder: Path) -> list[str]:
    """The scan's files as ``run.json`` has them, if it does."""
    paths = _run_document(folder).get("input_files")
    return [str(path) for path in paths] if isinstance(paths, list) else []


def _run_document(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

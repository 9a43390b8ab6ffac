"""Retrieve series from an archive into a folder: ``study/series/instance.dcm``, each file written atomically.

The files in the folder show what was retrieved, so repeating a call fetches only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ArchiveError, OutputError, Remedy
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.services.pacs.archive import Archive, TransientError, patiently
from medmaskrcnn.services.pacs.server import RemoteSeries
from medmaskrcnn.system.files import PARTIAL, make_folder, open_private, replacing
from medmaskrcnn.system.paths import is_uid, path_below


class DuplicateError(ArchiveError):
    """Two objects have one SOP Instance UID and differ."""


@dataclass(frozen=True)
class Pulled:
    """Outcome of retrieving one series.

    Attributes:
        series: The series.
        folder: Folder of its files.
        fetched: Number of files fetched now.
        were_there: Number of files that an earlier call had fetched.
        error: Why it is not complete.
        remedy: What the user may do then.
    """

    series: RemoteSeries
    folder: Path
    fetched: int = 0
    were_there: int = 0
    error: str | None = None
    remedy: Remedy | None = None


def pull(
    archive: Archive, wanted: Sequence[RemoteSeries], out: Path, on_event: Callable[[Pulled], None] | None = None
) -> list[Pulled]:
    """Fetch series; one that the archive cannot send does not stop the others.

    Args:
        archive: The archive.
        wanted: Series from :meth:`~medmaskrcnn.services.pacs.archive.Archive.find`.
        out: Folder, created with access for its owner only if missing.
        on_event: Called after each series.

    Raises:
        OutputError: if files cannot be written.
    """
    pulled = []
    try:
        make_folder(out, private=True)
        for stale in out.glob(f"*/*/*{PARTIAL}"):
            stale.unlink()
        for series in wanted:
            pulled.append(pull_series(archive, series, out))
            if on_event is not None:
                on_event(pulled[-1])
    except (OSError, OutputError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write to {out}: {reason}. Make room and run again: what came stays") from error
    return pulled


def pull_series(archive: Archive, series: RemoteSeries, out: Path) -> Pulled:
    """Fetch the missing objects of one series; retries if the archive stops answering."""
    try:
        folder = series_folder(out, series.study, series.series)
    except ArchiveError as error:
        return Pulled(series, out, error=error.reason)
    before = held(folder)
    fetched = 0

    def once() -> None:
        nonlocal fetched
        there = held(folder)
        missing = [checked_uid(uid, "SOP Instance UID") for uid in archive.instances(series) if uid not in there]
        if not missing:
            return
        for dataset in archive.fetch(series, missing if there else None):
            fetched += write_object(dataset, folder)
        if left := set(missing) - held(folder):
            raise TransientError(f"{archive.server.name} has sent {len(missing) - len(left)} of {len(missing)} objects")

    try:
        patiently(once, archive.server)
    except ArchiveError as error:
        return Pulled(series, folder, fetched, len(before), error.reason, error.remedy)
    return Pulled(series, folder, fetched, len(before))


def checked_uid(uid: str, what: str) -> str:
    """A UID that an archive or a sender gave.

    Raises:
        ArchiveError: if it is none; as part of a path or of an address it could lead elsewhere.
    """
    if not is_uid(uid):
        raise ArchiveError(f"the {what} {uid[:64]!r} is no UID")
    return uid


def series_folder(root: Path, study: str, series: str) -> Path:
    """The folder of a series' files: ``root/study/series``.

    Raises:
        ArchiveError: if a UID is none, or a link leads out of ``root``.
    """
    name = f"{checked_uid(study, 'Study Instance UID')}/{checked_uid(series, 'Series Instance UID')}"
    try:
        return path_below(root, name)
    except OutputError as error:
        raise ArchiveError(error.reason) from error


def held(folder: Path) -> set[str]:
    """SOP Instance UIDs of the files in a series' folder."""
    return {file.stem for file in folder.glob("*.dcm")}


def write_object(dataset: Dataset, folder: Path) -> int:
    """Write one object under its UID; 0 if it was already there, else 1.

    Raises:
        DuplicateError: if another object of the same UID is there.
        ArchiveError: if its UID is invalid.
        OutputError: if it cannot be written.
    """
    uid = checked_uid(str(dataset.get("SOPInstanceUID", "")), "SOP Instance UID")
    target = folder / f"{uid}.dcm"
    if target.exists():
        with suppress_pydicom_warnings():
            if dcmread(target) != dataset:
                raise DuplicateError("an object with the same SOP Instance UID but other content is there already")
        return 0
    make_folder(folder, private=True)
    with replacing(target, synced=True) as temporary, open_private(temporary) as stream:
        dataset.save_as(stream, enforce_file_format=True)
    return 1

"""Store results in an archive: SEG, SR and RTSTRUCT go into the study that they belong to.

An object's UID is a hash of its content, and the archive is queried for it first: however often a push is interrupted
and started again, each object is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from medmaskrcnn.errors import ArchiveError, ReadError, Remedy
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.export.write import FILE_NAMES
from medmaskrcnn.services.pacs.archive import Archive, patiently
from medmaskrcnn.system.exceptions import words_of

_OURS = tuple(FILE_NAMES[name] for name in ("seg", "sr", "rtstruct"))
_KINDS = ("SEG", "SR", "RTSTRUCT")


@dataclass(frozen=True)
class Pushed:
    """Outcome of storing one file.

    Attributes:
        file: The file.
        modality: DICOM modality.
        was_there: Whether the archive already had it.
        error: Why it is not stored.
        remedy: What the user may do then.
    """

    file: Path
    modality: str
    was_there: bool = False
    error: str | None = None
    remedy: Remedy | None = None


def results_below(places: Iterable[Path]) -> list[Path]:
    """The DICOM results in some folders: ``segmentation.dcm``, ``measurements.dcm``, ``contours.dcm``.

    Raises:
        ReadError: if a place does not exist, or there are no results.
    """
    found: list[Path] = []
    given = list(places)
    for place in given:
        if not place.exists():
            raise ReadError(f"there is no file or folder {place}")
        found += [place] if place.is_file() else sorted(p for name in _OURS for p in place.rglob(name))
    if not found:
        where = ", ".join(map(str, given))
        raise ReadError(f"{where}: no DICOM result", Remedy.WRITE_DICOM)
    return list(dict.fromkeys(found))


def push(archive: Archive, files: Sequence[Path], on_event: Callable[[Pushed], None] | None = None) -> list[Pushed]:
    """Store results; one that is refused does not stop the others.

    Args:
        archive: The archive.
        files: SEG, SR and RTSTRUCT files.
        on_event: Called after each file.
    """
    pushed = []
    for file in files:
        pushed.append(_push_one(archive, file))
        if on_event is not None:
            on_event(pushed[-1])
    archive.close()
    return pushed


def _push_one(archive: Archive, file: Path) -> Pushed:
    try:
        with suppress_pydicom_warnings():
            dataset = dcmread(file)
            modality = str(dataset.get("Modality", ""))
            place = [str(dataset[name].value) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    except (OSError, InvalidDicomError, KeyError) as error:
        return Pushed(file, "", error=f"{file} cannot be read as DICOM: {words_of(error)}")
    if modality not in _KINDS:
        return Pushed(
            file, modality, error=f"{file} is {modality or 'of no modality'}; only {', '.join(_KINDS)} go back"
        )

    def once() -> bool:
        if archive.holds(*place):
            return True
        archive.store(dataset)
        return False

    try:
        with suppress_pydicom_warnings():
            return Pushed(file, modality, was_there=patiently(once, archive.server))
    except ArchiveError as error:
        return Pushed(file, modality, error=error.reason, remedy=error.remedy)

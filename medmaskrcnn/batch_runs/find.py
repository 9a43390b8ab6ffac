"""Find every series in the sources, with what the rules and the ledger need; reads headers only."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydicom import dcmread

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.inference.track_time import cine_series
from medmaskrcnn.io.discover import FoundScan, find_scans, scans_among
from medmaskrcnn.io.options import AS_STORED, ReadingOptions
from medmaskrcnn.io.sources import is_zip, open_source

CINE = "cine"
"""The ``part`` under which the ledger lists all time points of a series as one."""

SEQUENCES = "sequences"
"""The ``part`` of a case of several series, the sequences of a model."""

Verdict = Literal["queued", "refused", "skipped"]

_TAGS = ["PatientID", "IssuerOfPatientID", "PatientName", "StudyInstanceUID", "StudyDate", "ConvolutionKernel",
         "SpecificCharacterSet"]  # fmt: skip
_IMAGE_ENDINGS = (".dcm", ".dicom", ".ima", ".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tif", ".tiff",
                  ".jpg", ".jpeg", ".zip")  # fmt: skip
_NO_SCANS = {"DICOMDIR", "README", "LICENSE", "LICENCE", "COPYING", "VERSION", "CHANGES", "CITATION"}


@dataclass(frozen=True)
class FoundSeries:
    """One series, or a file that is not a scan.

    Attributes:
        identity: Key in the ledger: the same for the same DICOM series, wherever its files lie.
        verdict: ``"queued"``: to be segmented; ``"refused"``: broken; ``"skipped"``: no scan, or excluded by a rule.
        reason: Why it is not queued; may contain paths.
        files: The files that it is read from.
        part: Which volume of its series, ``"EchoTime 4.6"``; "" if it is the only one.
        archive: The zip archive that it lies in, and its index in the archive's listing.
        fingerprint: Hash of names, sizes and times of the files; it changes when they do.
        patient: Identifies the patient; study: identifies the study.
        name: File or folder name.
        slices: Number of slices; 0 if unknown.
        remedy: Option that may help if it is refused; a value of :class:`medmaskrcnn.errors.Remedy`.
        sequences: Of a case of several series: name of each and how many of the files are its, in their order.
    """

    identity: str
    verdict: Verdict
    reason: str | None
    files: tuple[str, ...]
    fingerprint: str
    patient: str
    study: str
    name: str
    part: str = ""
    archive: tuple[str, int] | None = None
    patient_id: str = ""
    patient_name: str = ""
    study_date: str = ""
    study_uid: str = ""
    series_uid: str = ""
    modality: str | None = None
    description: str = ""
    kernel: str = ""
    slices: int = 0
    remedy: str | None = None
    sequences: tuple[tuple[str, int], ...] = ()


def find_series(
    sources: Sequence[Path], *, reading: ReadingOptions = AS_STORED, track: bool = False
) -> list[FoundSeries]:
    """List every series, and every file that is not a scan, in some sources; each once, in a fixed order.

    Args:
        sources: Files, folders, DICOMDIRs and zip archives. A source that cannot be opened is listed as refused.
        reading: Options by which series are queued that are refused without.
        track: Treat the time points of a cine series as one.
    """
    found: list[FoundSeries] = []
    files: dict[Path, None] = {}
    named = set()
    for source in sources:
        try:
            if source.is_file() and is_zip(source):
                found += _in_archive(source, reading)
                continue
            opened = open_source(source)
        except (ReadError, OSError) as error:
            found.append(_unopened(source, error.reason if isinstance(error, ReadError) else str(error)))
            continue
        found += [_unopened(Path(e.filename), f"{e.filename} may not be opened: {e.strerror}") for e in opened.closed]
        files |= dict.fromkeys(file.absolute() for file in opened.files)
        named |= {file.absolute() for file in opened.files if source.is_file()}
    scans = scans_among(files, merge_series=reading.merge_series)
    only_pictures = not any(scan.role == "scan" for scan in scans)
    for scan in scans:
        takes_picture = only_pictures or scan.files[0] in named
        found.append(_described(scan, reading=reading, takes_picture=takes_picture))
    if track:
        found = _films(found, scans)
    return _distinct(found)


def _films(found: list[FoundSeries], scans: Sequence[FoundScan]) -> list[FoundSeries]:
    """Merge the time points of each cine series into one."""
    films = cine_series(scans)
    kept = [one for one in found if one.series_uid not in films]
    for uid, members in films.items():
        files = tuple(str(file) for scan in members for file in scan.files)
        first = next(one for one in found if one.series_uid == uid)
        fingerprint = fingerprint_of([Path(file) for file in files])
        kept.append(
            replace(first, identity=f"{uid} {CINE}", verdict="queued", reason=None, remedy=None, files=files, part=CINE,
                    fingerprint=fingerprint, slices=len(members))
        )  # fmt: skip
    return kept


def _in_archive(archive: Path, reading: ReadingOptions) -> list[FoundSeries]:
    scans = find_scans(archive, merge_series=reading.merge_series)
    only_pictures = not any(scan.role == "scan" for scan in scans)
    fingerprint = fingerprint_of([archive])
    found = []
    for number, scan in enumerate(scans):
        one = _described(scan, reading=reading, takes_picture=only_pictures)
        where = (str(archive.absolute()), number)
        found.append(replace(one, files=(), archive=where, fingerprint=fingerprint, name=archive.name))
    return found


def _described(scan: FoundScan, *, reading: ReadingOptions, takes_picture: bool) -> FoundSeries:
    info, first = scan.info, scan.files[0]
    verdict, reason = _verdict(scan, reading, takes_picture)
    header = _identity_of(first) if info.format == "DICOM" else {}
    patient = header.get("PatientID") or header.get("PatientName") or header.get("StudyInstanceUID")
    issuer = header.get("IssuerOfPatientID", "")
    return FoundSeries(
        identity=f"{info.series_uid} {scan.part}".strip() if info.series_uid else f"file {first}",
        verdict=verdict,
        reason=reason,
        files=tuple(map(str, scan.files)),
        fingerprint=fingerprint_of(scan.files),
        patient=f"{issuer}|{patient}" if patient else f"file {first}",
        study=header.get("StudyInstanceUID") or f"file {first}",
        name=Path(info.path).name,
        part=scan.part,
        patient_id=header.get("PatientID", ""),
        patient_name=header.get("PatientName", ""),
        study_date=header.get("StudyDate", ""),
        study_uid=header.get("StudyInstanceUID", ""),
        series_uid=info.series_uid or "",
        modality=info.modality,
        description=info.description,
        kernel=header.get("ConvolutionKernel", ""),
        slices=info.shape[1] if info.shape else 0,
        remedy=scan.remedy.value if verdict == "refused" and scan.remedy is not None else None,
    )


def _verdict(scan: FoundScan, reading: ReadingOptions, takes_picture: bool) -> tuple[Verdict, str | None]:
    info = scan.info
    if scan.role == "picture":
        return ("queued", None) if takes_picture else ("skipped", "a picture beside scans")
    if scan.role == "scan":
        dropped = reading.drop_duplicates and scan.remedy is Remedy.DROP_DUPLICATES
        if info.segmentable or dropped or (reading.resample_irregular and scan.can_be_resampled):
            return "queued", None
        return "refused", info.reason
    if scan.role == "damaged" or (info.format == "unknown" and _claims_to_be_an_image(Path(info.path))):
        return "refused", info.reason
    return "skipped", info.reason


def _claims_to_be_an_image(path: Path) -> bool:
    """Whether the name of an unreadable file is that of an image: it may have been damaged by a copy."""
    if not path.suffix:
        return path.name.upper() not in _NO_SCANS
    return path.name.lower().endswith(_IMAGE_ENDINGS) or path.suffix[1:].isdigit()


def _identity_of(file: Path) -> dict[str, str]:
    """Patient and study attributes from one file's header; empty if it cannot be read."""
    try:
        with suppress_pydicom_warnings():
            header = dcmread(file, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            return {keyword: _text(header.get(keyword)) for keyword in _TAGS}
    except Exception:  # whatever pydicom raises on a damaged header: the patient is then unknown
        return {}


def _text(value: object) -> str:
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def fingerprint_of(files: Sequence[Path]) -> str:
    """Hash of the names, sizes and times of the files, and of a single file's siblings, such as its ``.raw``."""
    digest = hashlib.sha256()
    siblings = _siblings(files[0]) if len(files) == 1 and files[0].suffix else []
    for file in (*files, *siblings):
        try:
            state = file.stat()
            digest.update(f"{file.name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"{file.name}\0gone\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _siblings(file: Path) -> list[Path]:
    """Files beside one that have its name with other extensions; each folder is listed once."""
    try:
        return list(_by_stem(file.parent, file.parent.stat().st_mtime_ns).get(file.stem, ()))
    except OSError:
        return []


@lru_cache(maxsize=4)
def _by_stem(folder: Path, changed: int) -> dict[str, list[Path]]:
    """The files of a folder by what precedes each dot of their names."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - perhaps a million names
        for place in (i for i, letter in enumerate(name) if letter == "." and i):
            found[name[:place]].append(folder / name)
    return found


def _unopened(path: Path, reason: str) -> FoundSeries:
    whole = f"file {path.absolute()}"
    return FoundSeries(whole, "refused", reason, (str(path.absolute()),), "", whole, whole, path.name)


def _distinct(found: list[FoundSeries]) -> list[FoundSeries]:
    """Number the scans that share an identity, such as two orientations in one series."""
    seen: Counter[str] = Counter()
    distinct = []
    for one in found:
        seen[one.identity] += 1
        n = seen[one.identity]
        distinct.append(one if n == 1 else replace(one, identity=f"{one.identity} #{n}"))
    return distinct

"""Finds every scan in a file or folder, and every file that is not a scan, from headers alone.

The ``info`` command prints ``describe``; ``find_scans`` is the same with a way to read each scan. No voxels are decoded
and no heavy packages imported.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.io.dicom.group import group_stacks
from medmaskrcnn.io.dicom.header import DicomHeader
from medmaskrcnn.io.dicom.mosaic import read_slices
from medmaskrcnn.io.dicom.sop_classes import NOT_IMAGES
from medmaskrcnn.io.dicom.stack import DicomStack
from medmaskrcnn.io.dicom.volume import read_dicom
from medmaskrcnn.io.formats import READABLE, sniff
from medmaskrcnn.io.itk_formats import describe_itk, read_itk
from medmaskrcnn.io.nifti import describe_nifti, read_nifti
from medmaskrcnn.io.options import AS_STORED, ReadingOptions
from medmaskrcnn.io.pictures import describe_picture, read_picture
from medmaskrcnn.io.scan_info import ScanInfo, oblique_note, orientation_words
from medmaskrcnn.io.sources import Source, open_source
from medmaskrcnn.structures.volume import Volume

Role = Literal["scan", "picture", "excluded", "damaged", "object"]
_PICTURES = frozenset({"PNG", "TIFF", "JPEG"})
_HEADER_SUFFIXES = (".mhd", ".nhdr", ".hdr")
_DICOM_NAMES = {"PT": "PET", "": "DICOM"}
_EXAMPLES = 3


@dataclass(frozen=True)
class FoundScan:
    """The description of a scan or other file, with a function that reads it.

    Attributes:
        info: The description.
        reader: Returns the Volume, or raises ReadError with the reason.
        role: ``"scan"``; ``"picture"`` (no geometry; not used as a scan in a folder with scans); ``"excluded"`` (an
            image, but a localizer, a screenshot or a stray slice); ``"damaged"``; ``"object"`` (no image at all).
        files: The files of which it consists; :func:`scans_among` finds it again from these alone.
        part: What distinguishes it from other volumes of its series, ``"EchoTime 4.6"``; "" if it is alone.
        can_be_resampled: True if irregular slices are the only problem.
        remedy: An option by which it can be read although it is refused without.
    """

    info: ScanInfo
    reader: Callable[[ReadingOptions], Volume]
    role: Role
    files: tuple[Path, ...] = ()
    part: str = ""
    can_be_resampled: bool = False
    remedy: Remedy | None = None

    def read(self, options: ReadingOptions = AS_STORED) -> Volume:
        """The Volume; errors as :func:`~medmaskrcnn.io.read.read_volume`."""
        return self.reader(options)


def describe(path: str | os.PathLike[str], *, merge_series: bool = False) -> list[ScanInfo]:
    """List the contents of a file, or of a folder and its subfolders: one entry per scan and per file set aside.

    Args:
        path: A file, the folder of a series, a folder of many patients and series, nested in any way, a DICOMDIR or a
            zip archive of these.
        merge_series: See :func:`~medmaskrcnn.io.read.read_volume`.

    Raises:
        ReadError: if the path does not exist, the folder is empty, nothing in it could be recognised, or the
            single file given is damaged.
    """
    return [found.info for found in find_scans(Path(path), merge_series=merge_series)]


def find_scans(path: Path, *, merge_series: bool = False) -> list[FoundScan]:
    """As :func:`describe`, each description with a function that reads the scan."""
    source = open_source(path)
    found = [*(_closed(error) for error in source.closed), *scans_among(source.files, merge_series=merge_series)]
    found.sort(key=lambda f: f.info.path)
    if path.is_file() and len(source.files) == 1 and found[0].role == "damaged":
        found[0].read()
    found = [_told(one, path, source) for one in found]
    if all(f.info.format == "unknown" for f in found):
        raise ReadError(_nothing_message(path, found))
    return found


def scans_among(files: Iterable[Path], *, merge_series: bool = False) -> list[FoundScan]:
    """The scans that files form, and the files that are not scans; an empty list for no files."""
    found: list[FoundScan] = []
    frames: list[Frame] = []
    damaged: dict[Path, str] = {}
    for file in files:
        kind = None
        try:
            kind = sniff(file)
            if kind == "DICOM":
                header, its_frames = read_slices(file)
                frames += its_frames
                if header.non_image is not None:
                    found.append(_found_object(header, header.non_image))
            else:
                found.append(_found_other(file, kind))
        except ReadError as error:
            found.append(_refused(file, kind, error))
            if kind == "DICOM":
                damaged[file] = error.reason
    found += [_found_dicom(stack) for stack in group_stacks(frames, damaged, merge_series=merge_series)]
    return sorted(found, key=lambda f: f.info.path)


def _closed(error: OSError) -> FoundScan:
    reason = f"{error.filename} may not be opened: {error.strerror}. Check the folder's rights"
    return _refused(Path(error.filename), None, ReadError(reason))


def _told(found: FoundScan, path: Path, source: Source) -> FoundScan:
    """Add the source's notes; show paths in an archive as the user knows them, and keep it as long as the Volume."""
    if source.unpacked is None and not source.notes:
        return found
    folder = source.unpacked.name if source.unpacked else ""

    def shown(text: str) -> str:
        return text.replace(folder, str(path)) if folder else text

    def read(options: ReadingOptions) -> Volume:
        try:
            volume = found.read(options)
        except ReadError as error:
            raise type(error)(shown(error.reason), error.remedy) from error
        notes = (*volume.provenance.notes, *source.notes)
        volume = replace(volume, provenance=replace(volume.provenance, notes=notes))
        weakref.finalize(volume, lambda _: None, source)  # unpacked files live as long as the Volume
        return volume

    info = found.info
    reason = None if info.reason is None else shown(info.reason)
    notes = (*info.notes, *source.notes) if found.role == "scan" else info.notes
    return replace(found, info=replace(info, path=shown(info.path), reason=reason, notes=notes), reader=read)


def _found_other(path: Path, kind: str | None) -> FoundScan:
    """A file of another format than DICOM, or of an unknown one."""
    if kind == "NIfTI":
        return FoundScan(describe_nifti(path), lambda _: read_nifti(path), "scan", (path,))
    if kind in ("NRRD", "MetaImage"):
        return FoundScan(describe_itk(path, kind), lambda _: read_itk(path, kind), "scan", (path,))
    if kind in _PICTURES and kind is not None:
        return FoundScan(describe_picture(path, kind), lambda _: read_picture(path, kind), "picture", (path,))
    header = next((h for s in _HEADER_SUFFIXES if (h := path.with_suffix(s)).is_file() and h != path), None)
    if header is not None:
        reason = f"the voxels that belong to {header.name}"
    elif path.stat().st_size == 0:
        reason = "an empty file"
    else:
        reason = f"of none of the formats that can be read: {READABLE}"
    return _unreadable(ScanInfo(str(path), "unknown", "not an image", reason=reason), "object")


def _refused(path: Path, kind: str | None, error: ReadError) -> FoundScan:
    words = f"damaged {kind} file" if kind else "unreadable file"
    info = ScanInfo(str(path), kind or "unknown", words, reason=error.reason)

    def read(_: ReadingOptions) -> Volume:
        raise error

    return FoundScan(info, read, "damaged", (path,))


def _found_object(header: DicomHeader, kind: str) -> FoundScan:
    """A DICOM object that is no image: contours, segmentation, report."""
    info = ScanInfo(
        path=str(header.path),
        format="DICOM",
        kind=kind,
        modality=header.modality or None,
        series_uid=header.series_uid or None,
        description=header.description,
        reason=NOT_IMAGES[kind],
    )
    return _unreadable(info, "object")


def _unreadable(info: ScanInfo, role: Role) -> FoundScan:
    def read(_: ReadingOptions) -> Volume:
        raise ReadError(f"{info.path} is {info.reason}. Give the scan itself")

    return FoundScan(info, read, role, (Path(info.path),))


def _found_dicom(stack: DicomStack) -> FoundScan:
    """The images of a DICOM series that form one volume, readable or not."""
    header, grid = stack.header, stack.grid
    reason = stack.excluded or stack.problem
    description = f"{header.description} ({stack.separated_by})".strip() if stack.separated_by else header.description
    info = ScanInfo(
        path=str(stack.folder),
        format="DICOM",
        kind=_dicom_kind(stack),
        modality=header.modality or None,
        shape=stack.shape,
        spacing_mm=grid.spacing_mm if grid else None,
        orientation=orientation_words(grid) if grid and stack.frames[0].has_plane else None,
        series_uid=header.series_uid or None,
        description=description,
        files=len(stack.paths),
        segmentable=reason is None,
        reason=reason,
        notes=(*stack.notes, *(oblique_note(grid) if grid and stack.frames[0].has_plane else ())),
    )
    return FoundScan(
        info,
        lambda options: read_dicom(stack, options),
        "excluded" if stack.excluded else "scan",
        tuple(stack.paths),
        stack.separated_by,
        stack.can_be_resampled and not stack.excluded,
        None if stack.excluded else stack.remedy or (Remedy.RESAMPLE_IRREGULAR if stack.can_be_resampled else None),
    )


def _dicom_kind(stack: DicomStack) -> str:
    modality = _DICOM_NAMES.get(stack.header.modality, stack.header.modality)
    if stack.is_secondary_capture:
        return "secondary capture"
    if stack.excluded and "localizer" in stack.excluded:
        return f"{modality} localizer"
    if len(stack.paths) > 1:
        return f"{modality} series"
    return f"{modality} multi-frame image" if len(stack.frames) > 1 else f"{modality} image"


def _nothing_message(path: Path, found: list[FoundScan]) -> str:
    if path.is_file():
        return f"{path} is {found[0].info.reason}"
    names = ", ".join(Path(f.info.path).name for f in found[:_EXAMPLES])
    more = f" and {len(found) - _EXAMPLES} more" if len(found) > _EXAMPLES else ""
    return f"{path} holds no image that can be read: only {names}{more}. Give a folder with {READABLE}"

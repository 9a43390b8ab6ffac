"""Which DICOM files belong together: from a heap of headers to scans.

File names and folders are not trusted, headers are: one scan is what shares Series Instance UID, frame of
reference, size, colour, orientation and pixel spacing. The rest is named and set aside with the reason.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.arrange import Arrangement, Slice, arrange
from medmaskrcnn.io.dicom.geometry import IrregularError, same_orientation
from medmaskrcnn.io.dicom.header import DicomFile
from medmaskrcnn.io.dicom.parts import Part, separate

_LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT"})
_SCREEN_TYPES = frozenset({"SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "CSA REPORT", "PROTOCOL"})
_LOCALIZER_WORDS = re.compile(
    r"(?<![a-z])(localizers?|localisers?|scouts?|topograms?|surview|survey|scanogram)(?![a-z])", re.IGNORECASE
)
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
_STRAY_SHARE = 0.1
_STRAY_SINGLE = 3  # from so many slices on, a single other one in the series is a stray


@dataclass(frozen=True, eq=False)
class DicomScan:
    """Slices that belong together.

    Attributes:
        slices: In no particular order; :attr:`arrangement` has them sorted.
        arrangement: The slices in order, or ``None`` if they have no regular grid.
        problem: Why they have none, or which file is damaged; ``None`` if the scan can be read.
        set_aside: Why this is not what a user means by a scan (localizer, screenshot); ``None`` if it is.
        part: What tells it from other volumes of its series, ``"EchoTime 4.6"``; "" where it is alone.
        left_out: Number of copies and strays that are not among the slices.
        can_be_resampled: True if all that stands against it is that its slices are irregular.
        notes: What was done in grouping, one sentence each.
    """

    slices: tuple[Slice, ...]
    arrangement: Arrangement | None
    problem: str | None = None
    set_aside: str | None = None
    part: str = ""
    left_out: int = 0
    can_be_resampled: bool = False
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> DicomFile:
        """The file whose header speaks for the scan."""
        return self.slices[0].file

    @property
    def paths(self) -> list[Path]:
        """Its files, each once, in the order of ``slices``."""
        return list(dict.fromkeys(s.file.path for s in self.slices))

    @property
    def folder(self) -> Path:
        """The folder that holds all its files, or the file if there is one only."""
        return self.paths[0] if len(self.paths) == 1 else Path(os.path.commonpath([p.parent for p in self.paths]))


def group_scans(files: Iterable[DicomFile], damaged: Mapping[Path, str] | None = None) -> list[DicomScan]:
    """Scans among DICOM images, in the order of their first file's path.

    Args:
        files: Headers of images (``non_image is None``).
        damaged: DICOM files whose header could not be read, and why: they may belong to any scan in their folder.
    """
    by_key: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for file in sorted(files, key=lambda f: str(f.path)):
        for frame in file.frames:
            by_key[_key(file, placed=frame.plane is not None)].append(Slice(file, frame))
    parts = [part for slices in by_key.values() for part in _by_orientation(slices)]
    damaged_in = {path.parent: reason for path, reason in (damaged or {}).items()}
    # Volumes of one series stay together, in the order in which they are told apart.
    first_paths = {id(one): str(min(s.file.path for s in same)) for same in parts for one in same}
    scans = [
        _judge(part, n_copies, damaged_in)
        for same in parts
        for slices, n_copies in _without_copies(same)
        for part in separate(slices)
    ]
    return _set_strays_aside(sorted(scans, key=lambda s: first_paths[id(s.slices[0])]))


def _key(file: DicomFile, *, placed: bool) -> tuple[object, ...]:
    series = file.series_uid or f"folder {file.path.parent}"
    colour = "colour" if file.samples > 1 else file.photometric
    # An image without a place in the patient cannot be sorted into a stack: each file stands alone. Not so a slice of
    # a cross-sectional scan, which has lost what it should have.
    alone = None if placed or file.modality in _CROSS_SECTIONAL else file.path
    localizer = not _LOCALIZER_TYPES.isdisjoint(file.image_type)
    return (series, file.frame_of_reference_uid, file.modality, file.rows, file.columns, colour, localizer, alone)


def _by_orientation(slices: Sequence[Slice]) -> list[list[Slice]]:
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            a, b = group[0].frame.plane, one.frame.plane
            if (a is None and b is None) or (a is not None and b is not None and same_orientation(a, b)):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _without_copies(slices: Sequence[Slice]) -> list[tuple[list[Slice], int]]:
    """Leave out files that are byte for byte copies of another; split the same series stored in two folders.

    Returns:
        Slices and the number of copies left out, for each series.
    """
    kept: list[Slice] = []
    by_instance: dict[tuple[str, int], list[Slice]] = defaultdict(list)
    n_copies = 0
    for one in slices:
        duplicates = by_instance[(one.file.sop_instance_uid or str(one.file.path), one.frame.index)]
        if any(filecmp.cmp(one.file.path, duplicate.file.path, shallow=False) for duplicate in duplicates):
            n_copies += 1
            continue
        duplicates.append(one)
        kept.append(one)
    folders = {s.file.path.parent for s in kept}
    if len(folders) > 1 and any(len(duplicates) > 1 for duplicates in by_instance.values()):
        return [([s for s in kept if s.file.path.parent == folder], n_copies) for folder in sorted(folders)]
    return [(kept, n_copies)]


def _judge(part: Part, n_copies: int, damaged_in: dict[Path, str]) -> DicomScan:
    """Arrange the slices if they can be, and say what stands against them."""
    slices = part.slices
    first = slices[0].file
    notes = [f"{n_copies} slices are there twice, byte for byte; one of each is used."] if n_copies else []
    if part.name:
        notes.append(f"The series holds several volumes; this is the one of {part.name}.")
    arrangement, problem, can_be_resampled = None, None, False
    try:
        arrangement = arrange(slices)
    except IrregularError as error:
        problem, can_be_resampled = str(error), True
    except ReadError as error:
        problem = str(error)
    cut = next((s.file.path for s in slices if s.file.cut_short), None)
    bad = next((damaged_in[f] for f in {s.file.path.parent for s in slices} if f in damaged_in), None)
    if cut is not None:
        problem = f"{cut.name} is cut short: it ends before its pixel data does. Copy or export it again"
    elif bad is not None and slices[0].frame.plane is not None:
        problem = f"a file in its folder that may be one of its slices cannot be read: {bad}"
    elif first.is_mosaic:
        problem = (
            "a mosaic: many slices tiled into one picture, with the geometry of none. Export it as an enhanced "
            "multi-frame object or convert it with dcm2niix"
        )
    can_be_resampled &= cut is None and bad is None
    aside = set_aside_because(first)
    return DicomScan(slices, arrangement, problem, aside, part.name, n_copies, can_be_resampled, tuple(notes))


def set_aside_because(file: DicomFile) -> str | None:
    """Why an image is not what a user means by a scan, or ``None``."""
    words = {word.strip().upper() for word in file.image_type}
    if words & _LOCALIZER_TYPES or _LOCALIZER_WORDS.search(file.description):
        return "a localizer (scout): an overview for planning, not a scan"
    if file.is_screenshot or words & _SCREEN_TYPES:
        return "a secondary capture (screenshot, report page or scanned paper), not a scan"
    return None


def _set_strays_aside(scans: list[DicomScan]) -> list[DicomScan]:
    """A few slices of another size or orientation inside a series are not a scan of their own."""
    by_series: dict[str, list[DicomScan]] = defaultdict(list)
    for scan in scans:
        if scan.first.series_uid and scan.set_aside is None and not scan.part:
            by_series[scan.first.series_uid].append(scan)
    changed: dict[int, DicomScan] = {}
    for parts in by_series.values():
        main = max(parts, key=lambda s: len(s.slices))
        most = len(main.slices)
        strays = [p for p in parts if p is not main and _is_stray(len(p.slices), most)]
        for stray in strays:
            reason = f"{len(stray.slices)} of another size, orientation or kind than the {most} slices of its series"
            changed[id(stray)] = replace(stray, set_aside=reason)
        if strays:
            n = sum(len(s.slices) for s in strays)
            note = f"{n} of the series' slices differ in size, orientation or kind; they are left out."
            changed[id(main)] = replace(main, notes=(*main.notes, note), left_out=main.left_out + n)
    return [changed.get(id(scan), scan) for scan in scans]


def _is_stray(n: int, most: int) -> bool:
    return n <= _STRAY_SHARE * most or (n == 1 and most >= _STRAY_SINGLE)

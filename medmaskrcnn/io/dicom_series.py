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

from medmaskrcnn.dicom.geometry import same_orientation
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom_arrange import Arrangement, Slice, arrange
from medmaskrcnn.io.dicom_header import DicomFile

_LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT"})
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
        notes: What was done in grouping, one sentence each.
    """

    slices: tuple[Slice, ...]
    arrangement: Arrangement | None
    problem: str | None = None
    set_aside: str | None = None
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
    whole = [scan for part in parts for scan in _without_copies(part)]
    damaged_in = {path.parent: reason for path, reason in (damaged or {}).items()}
    scans = [_judge(slices, notes, damaged_in) for slices, notes in whole]
    return _set_strays_aside(sorted(scans, key=lambda s: str(s.paths[0])))


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


def _without_copies(slices: Sequence[Slice]) -> list[tuple[list[Slice], tuple[str, ...]]]:
    """Leave out files that are byte for byte copies of another; split the same series stored in two folders."""
    kept: list[Slice] = []
    by_instance: dict[tuple[str, int], list[Slice]] = defaultdict(list)
    n_copies = 0
    for one in slices:
        twins = by_instance[(one.file.sop_instance_uid or str(one.file.path), one.frame.index)]
        if any(filecmp.cmp(one.file.path, twin.file.path, shallow=False) for twin in twins):
            n_copies += 1
            continue
        twins.append(one)
        kept.append(one)
    notes = (f"{n_copies} slices are there twice, byte for byte; one of each is used.",) if n_copies else ()
    folders = {s.file.path.parent for s in kept}
    if len(folders) > 1 and any(len(twins) > 1 for twins in by_instance.values()):
        return [([s for s in kept if s.file.path.parent == folder], notes) for folder in sorted(folders)]
    return [(kept, notes)]


def _judge(slices: Sequence[Slice], notes: tuple[str, ...], damaged_in: dict[Path, str]) -> DicomScan:
    """Arrange the slices if they can be, and say what stands against them."""
    first = slices[0].file
    arrangement, problem = None, None
    try:
        arrangement = arrange(slices)
    except ReadError as error:
        problem = str(error)
    cut = next((s.file.path for s in slices if s.file.cut_short), None)
    bad = next((damaged_in[f] for f in {s.file.path.parent for s in slices} if f in damaged_in), None)
    if cut is not None:
        problem = f"{cut.name} is cut short: it ends before its pixel data does. Copy or export it again"
    elif bad is not None and slices[0].frame.plane is not None:
        problem = f"a file in its folder that may be one of its slices cannot be read: {bad}"
    set_aside = None
    if not _LOCALIZER_TYPES.isdisjoint(first.image_type) or _LOCALIZER_WORDS.search(first.description):
        set_aside = "a localizer (scout): an overview for planning, not a scan"
    elif first.is_screenshot:
        set_aside = "a secondary capture (screenshot or scanned page), not a scan"
    return DicomScan(tuple(slices), arrangement, problem, set_aside, notes)


def _set_strays_aside(scans: list[DicomScan]) -> list[DicomScan]:
    """A few slices of another size or orientation inside a series are not a scan of their own."""
    by_series: dict[str, list[DicomScan]] = defaultdict(list)
    for scan in scans:
        if scan.first.series_uid and scan.set_aside is None:
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
            changed[id(main)] = replace(main, notes=(*main.notes, note))
    return [changed.get(id(scan), scan) for scan in scans]


def _is_stray(n: int, most: int) -> bool:
    return n <= _STRAY_SHARE * most or (n == 1 and most >= _STRAY_SINGLE)

"""Reads DICOM SEG (Segmentation and Label Map Segmentation Storage) as instances on a scan's grid.

Each segment is one instance. BINARY frames have one bit per pixel, FRACTIONAL frames a fraction of Maximum Fractional
Value, LABELMAP frames the segment number in each pixel; segments of the first two may overlap. Frames are placed by
their own Plane Position. DICOM PS3.3, C.8.20 and C.7.6.16.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import Frame, frames_of_dataset
from medmaskrcnn.io.dicom.geometry import same_orientation
from medmaskrcnn.io.dicom.pixels import read_dataset, stored_frames
from medmaskrcnn.io.guard import MAX_SCAN_BYTES, Allowance, convert_read_errors
from medmaskrcnn.io.labels.label_grids import SliceMap, map_slices, paste
from medmaskrcnn.io.labels.label_set import LabelledObject, LabelSet, collect
from medmaskrcnn.structures.mask import BoolArray, Mask
from medmaskrcnn.structures.volume import Volume

FRACTION = 0.5
"""A voxel of a FRACTIONAL segmentation belongs to its segment from this fraction on."""


@dataclass(frozen=True, eq=False)
class _Segmentation:
    """A SEG's header: its frames, and the segment of each frame (``None`` for a label map)."""

    dataset: FileDataset
    kind: str
    names: dict[int, str]
    frames: list[Frame]
    numbers: list[int | None]


def read_seg(path: Path, volume: Volume) -> LabelSet:
    """Read a DICOM SEG onto a scan's grid.

    Args:
        path: The SEG.
        volume: The scan that it segments, or another in its frame of reference.

    Returns:
        One instance per segment, in the order of segment numbers, with the segment's label as class. Frames at most
        half a slice away from a slice are assigned to it; a segmentation on another grid is resampled by nearest
        neighbour, which is noted.

    Raises:
        ReadError: if the file is damaged, belongs to another frame of reference, or has no position.
    """
    with convert_read_errors(path, "DICOM SEG"):
        seg = _open(path, volume)
        notes: list[str] = []
        slices = map_slices(seg.frames, volume.grid, spacing_mm=_spacing(seg.dataset))
        notes += slices.notes
        memory = Allowance(path, "its segments")
        crops: dict[int, list[tuple[int, BoolArray]]] = defaultdict(list)
        for index, number, mask in _segment_frames(seg, path):
            if mask.any():
                memory.take(mask.nbytes)
                crops[number].append((slices.places[index], mask))
        found = [
            _labelled(name, crops.pop(number, []), slices, volume, notes) for number, name in sorted(seg.names.items())
        ]
        for number in sorted(crops):
            raise ReadError(f"{path} has voxels of segment {number}, which its header does not describe; it is damaged")
        return collect(volume.grid, found, notes)


def seg_class_names(path: Path) -> tuple[str, ...]:
    """Class names of a SEG's segments, from its header alone.

    Raises:
        ReadError: if the file is damaged.
    """
    with convert_read_errors(path, "DICOM SEG"):
        segments = dcmread(path, force=True, stop_before_pixels=True).get("SegmentSequence") or []
        return tuple(dict.fromkeys(_class_name(one) for one in segments if int(one.SegmentNumber)))


def _open(path: Path, volume: Volume) -> _Segmentation:
    """Header and frames, checked as far as possible without decoding."""
    dataset = read_dataset(path)
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if not (rows and columns and dataset.get("SegmentSequence")):
        raise ReadError(f"{path} is no segmentation made of voxels (it has no rows, columns or segments)")
    if rows * columns * n_frames > MAX_SCAN_BYTES:
        raise ReadError(f"{path}: the header claims {n_frames} frames of {rows} x {columns}; the file is damaged")
    ours, theirs = volume.provenance.frame_of_reference_uid, dataset.get("FrameOfReferenceUID")
    if ours and theirs and str(theirs) != ours:
        raise ReadError(
            f"{path} lies in another frame of reference ({theirs}) than the scan ({ours}). "
            f"Give the scan that it was made from"
        )
    frames = frames_of_dataset(path, dataset)
    if not all(f.has_plane and same_orientation(f, frames[0]) for f in frames):
        raise ReadError(f"{path} does not tell for each frame where it lies, or its frames are turned differently")
    kind = str(dataset.get("SegmentationType") or "BINARY")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise ReadError(f"{path}: segmentation type {kind!r} is unknown; BINARY, FRACTIONAL or LABELMAP can be read")
    names = {int(s.SegmentNumber): _class_name(s) for s in dataset.SegmentSequence}
    names.pop(0, None)  # a label map describes its background as segment 0
    numbers: list[int | None] = [None] * n_frames if kind == "LABELMAP" else _segment_numbers(dataset)
    return _Segmentation(dataset, kind, names, frames, numbers)


def _class_name(segment: Dataset) -> str:
    """Segment Label, or the start of Segment Description if the label begins with it ("tumour 2" and "tumour; ...")."""
    label = str(segment.get("SegmentLabel") or "") or f"segment {segment.SegmentNumber}"
    name = str(segment.get("SegmentDescription") or "").partition(";")[0].strip()
    return name if name and label.startswith(name) else label


def _segment_numbers(dataset: Dataset) -> list[int | None]:
    """Referenced Segment Number of each frame; a single segment may be given once for all frames."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    found: list[int | None] = []
    for group in groups:
        item = (group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence)[0]
        found.append(int(item.ReferencedSegmentNumber))
    return found


def _spacing(dataset: Dataset) -> float | None:
    """Spacing Between Slices (0018,0088), or ``None`` if the file does not give it."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    value = (shared.get("PixelMeasuresSequence") or [Dataset()])[0].get("SpacingBetweenSlices")
    return float(value) if value else None


def _segment_frames(seg: _Segmentation, path: Path) -> Iterator[tuple[int, int, BoolArray]]:
    """Frame index, segment number and mask, for each segment of each frame."""
    whole = float(seg.dataset.get("MaximumFractionalValue") or 255)
    for index, pixels in enumerate(stored_frames(seg.dataset)):
        number = seg.numbers[index]
        if number is None:
            for value in _values(pixels):
                yield index, value, pixels == value
        elif seg.kind == "FRACTIONAL":
            yield index, number, pixels >= FRACTION * whole
        else:
            yield index, number, pixels.astype(np.bool_)


def _values(pixels: NDArray[Any]) -> list[int]:
    return [int(v) for v in np.unique(pixels) if v != 0]


def _labelled(
    name: str, planes: list[tuple[int, BoolArray]], slices: SliceMap, volume: Volume, notes: list[str]
) -> LabelledObject:
    """One segment as a tight crop on the scan's grid, from its non-empty planes."""
    if not planes:
        notes.append(f"{name!r} has no voxel.")
        return LabelledObject(name, Mask.empty())
    low, high = min(k for k, _ in planes), max(k for k, _ in planes)
    rows = _extent([np.asarray(m.any(axis=1)) for _, m in planes])
    columns = _extent([np.asarray(m.any(axis=0)) for _, m in planes])
    crop = np.zeros((high - low + 1, rows.stop - rows.start, columns.stop - columns.start), np.bool_)
    for k, mask in planes:
        crop[k - low] |= mask[rows, columns]
    found = paste(Mask((low, rows.start, columns.start), crop), slices.grid, volume.grid)
    if found.is_empty:
        notes.append(f"{name!r} lies outside of the scan or between its voxels; its mask is empty.")
    return LabelledObject(name, found)


def _extent(hits: list[NDArray[np.bool_]]) -> slice:
    found = np.flatnonzero(np.logical_or.reduce(hits))
    return slice(int(found[0]), int(found[-1]) + 1)

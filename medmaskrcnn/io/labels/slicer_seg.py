"""Reads ``.seg.nrrd``, the segmentations of 3D Slicer: a NRRD label map whose header names its segments.

``SegmentN_Name``, ``SegmentN_LabelValue`` and ``SegmentN_Layer`` say for each segment in which layer which value is its
own. Segments that overlap lie in different layers: the array then has a fourth axis. Format:
https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html#segmentation-file-format-seg-nrrd
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.labels.label_grids import paste, same_voxels
from medmaskrcnn.io.labels.label_maps import check_sizes, whole_numbers
from medmaskrcnn.io.labels.label_set import LabelledObject, LabelSet, collect
from medmaskrcnn.io.text_headers import read_text_header
from medmaskrcnn.structures.label_maps import MapKind, connected_components
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

_FIELD = re.compile(r"segment(\d+)_(name|labelvalue|layer)")
OWN_GRID = "The label map lies on a grid of its own; each voxel takes the label of the nearest voxel."


@dataclass(frozen=True)
class SlicerSegment:
    """One segment as the header describes it.

    Attributes:
        name: Its name.
        value: Value of its voxels.
        layer: Index of the layer in which they lie.
    """

    name: str
    value: int
    layer: int


def slicer_segments(path: Path) -> list[SlicerSegment]:
    """The segments that a NRRD file's header describes; none if it is no segmentation of 3D Slicer.

    Raises:
        ReadError: if a value or a layer is no number.
    """
    described: dict[int, dict[str, str]] = {}
    with convert_read_errors(path, "NRRD"):
        keys = read_text_header(path, "NRRD").keys
    for key, text in keys.items():
        if (match := _FIELD.fullmatch(key)) is not None:
            described.setdefault(int(match[1]), {})[match[2]] = text
    try:
        return [
            SlicerSegment(d.get("name") or f"segment {n}", int(d.get("labelvalue", 1)), int(d.get("layer", 0)))
            for n, d in sorted(described.items())
        ]
    except ValueError as error:
        raise ReadError(f"{path}: the header describes its segments wrongly: {error}") from error


def labels_of_slicer(
    path: Path, segments: list[SlicerSegment], label_map: Volume, scan: Volume, *, kind: MapKind
) -> LabelSet:
    """The segments as instances of a scan, in the header's order.

    Args:
        path: The file, for errors.
        segments: What its header describes.
        label_map: Its voxels; the layers are channels.
        scan: The scan.
        kind: ``"instance"``: each segment is an object; ``"semantic"``: each of its connected parts is one.

    Raises:
        ReadError: if the voxels are no whole numbers, or a layer is missing.
    """
    values = whole_numbers(label_map.array)
    if values is None:
        raise ReadError(f"{path} holds values that are no whole numbers from 0; it is damaged")
    check_sizes(path, label_map.grid, scan.grid)
    notes = [] if same_voxels(label_map.grid, scan.grid) else [OWN_GRID]
    found = []
    for segment in segments:
        if not 0 <= segment.layer < len(values):
            raise ReadError(f"{path}: layer {segment.layer} of {segment.name!r} is missing; it is damaged")
        own = Mask((0, 0, 0), values[segment.layer] == segment.value).tight()
        if own.is_empty:
            notes.append(f"{segment.name!r} has no voxel.")
            continue
        for mask in connected_components(own) if kind == "semantic" else [own]:
            found.append(LabelledObject(segment.name, paste(mask, label_map.grid, scan.grid)))
    return collect(scan.grid, found, notes)

"""DICOM Segmentation (PS3.3 A.51): every instance is a segment, voxel for voxel on the images of its scan.

BINARY: one bit per voxel, one segment and one tracking UID per instance; segments may overlap, as a tumour and the
liver do. LABELMAP: one number per voxel, run-length encoded, a twentieth of the size; for results without overlaps
and readers that support it (it was added to the standard in 2024).

A result without instances becomes one segment for each class that the model detects, each with an empty frame, so
that the object is valid and records which classes were not found.

highdicom makes the object. It takes segments either as one dense array each or as one label map; the instances are
passed as the latter, packed into as few layers without overlap as possible, so that memory stays that of a few volumes
however many instances there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
from highdicom import (
    AlgorithmIdentificationSequence,
    CoordinateSystemNames,
    PixelMeasuresSequence,
    PlanePositionSequence,
)
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.codes import Coding, Term
from medmaskrcnn.export.dicom_object import (
    MANUFACTURER,
    SERIES_NUMBERS,
    AlgorithmType,
    SegmentDescriptor,
    character_set,
    content_description,
    equipment_attributes,
    printable,
    segment_descriptors,
    series_description,
    set_fixed_timestamps,
    uids_of,
)
from medmaskrcnn.export.source_series import SourceSeries
from medmaskrcnn.export.uids import ResultUIDs
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.overlap import pack_layers

Encoding = Literal["binary", "auto"]
"""``"auto"`` lets a result without overlaps become a LABELMAP."""

_SAME_IN_ALL_PARTS = ("PlaneOrientationSequence", "PixelMeasuresSequence")
_MAX_SEGMENTS = np.iinfo(np.uint16).max  # Segment Number (0062,0004) is 16 bits


def make_seg(
    result: CaseResult, source: SourceSeries, *, encoding: Encoding = "binary", algorithm: AlgorithmType = "AUTOMATIC"
) -> Segmentation:
    """The result's instances as a DICOM SEG; the same result gives the same bytes.

    Args:
        result: The result; segment numbers are its ids 1..n.
        source: Headers of the scan that it belongs to.
        encoding: ``"binary"``, or ``"auto"``: a LABELMAP where no two instances share a voxel.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.

    Raises:
        OutputError: if the result has more instances than a SEG may have segments.
    """
    found = result.instances
    if len(found) > _MAX_SEGMENTS:
        raise OutputError(f"a DICOM SEG holds at most {_MAX_SEGMENTS} segments, the result has {len(found)}")
    uids = uids_of(result, source, algorithm)
    layers = pack_layers(found.masks) or [[]]
    label_map = is_label_map(found, encoding)
    descriptions = [
        _description(number, item, result, algorithm)
        for number, item in enumerate(segment_descriptors(result, uids), start=1)
    ]
    parts = [_part(result, source, uids, descriptions, layer, label_map) for layer in layers]
    seg = parts[0] if len(parts) == 1 else _joined(parts, layers, descriptions)
    # where pixels agree highdicom uses the images' pixel measures, not ours; their thickness may differ from the step
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = _measures(result, source)
    _name_dimensions(seg, uids)
    set_fixed_timestamps(seg, source)
    seg.ContentCreatorName = ""  # type 2 in PS3.3, table 10-12; highdicom leaves it out
    return seg


def _part(
    result: CaseResult,
    source: SourceSeries,
    uids: ResultUIDs,
    descriptions: Sequence[SegmentDescription],
    layer: Sequence[int],
    label_map: bool,
) -> Segmentation:
    """The object with only one layer's segments, numbered from 1 in the layer's order; all segments if it is empty.

    highdicom searches every frame for every segment it was given, so it is given no more than needed.
    """
    pixels, places = _stacked(result.instances, layer)
    own = [deepcopy(descriptions[i]) for i in layer] or list(descriptions)
    for number, description in enumerate(own, start=1):
        description.SegmentNumber = number
    return Segmentation(
        source_images=list(source.headers),
        pixel_array=pixels,
        segmentation_type="LABELMAP" if label_map else "BINARY",
        segment_descriptions=own,
        series_instance_uid=uids.series(seg_kind(label_map)),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=uids.instance(seg_kind(label_map)),
        instance_number=1,
        transfer_syntax_uid=RLELossless if label_map else ExplicitVRLittleEndian,
        pixel_measures=_measures(result, source),
        plane_positions=[_position(source, d) for d in places],
        omit_empty_frames=len(layer) > 0,
        content_label="RESEARCH",
        content_description=content_description(result),
        series_description=series_description(result, "segmentation"),
        specific_character_set=character_set(source, [item.SegmentLabel for item in descriptions]),
        **equipment_attributes(result, source),
    )


def is_label_map(instances: Instances, encoding: Encoding) -> bool:
    """Whether instances become a LABELMAP: the user allows it, there are some, and no two share a voxel."""
    return encoding == "auto" and len(pack_layers(instances.masks)) == 1


def seg_kind(label_map: bool) -> str:
    """The kind that the object's UIDs are derived from: two encodings of one result are two objects."""
    return "SEG label map" if label_map else "SEG"


def _stacked(found: Instances, layer: Sequence[int]) -> tuple[NDArray[Any], list[int]]:
    """The layer's non-empty frames ``(F, H, W)`` of segment numbers, and the slice index D of each."""
    dtype = np.uint8 if len(layer) <= np.iinfo(np.uint8).max else np.uint16
    windows = [(number, found.masks[i].array, *found.masks[i].window) for number, i in enumerate(layer, start=1)]
    touched = sorted({d for _, _, along, _, _ in windows for d in range(along.start, along.stop)})
    frames, places = [], []
    for d in touched:
        frame = np.zeros(found.grid.shape[1:], dtype)
        for number, mask, along, rows, columns in windows:
            if along.start <= d < along.stop:
                frame[rows, columns][mask[d - along.start]] = number
        if frame.any():
            frames.append(frame)
            places.append(d)
    if not frames:  # nothing was found: an empty frame at the first slice, for each class
        return np.zeros((1, *found.grid.shape[1:]), dtype), [0]
    return np.stack(frames), places


def _joined(
    parts: Sequence[Segmentation], layers: Sequence[Sequence[int]], descriptions: Sequence[SegmentDescription]
) -> Segmentation:
    """All layers' frames in the first layer's object, segments and dimension indices renumbered (PS3.3 C.7.6.17)."""
    whole = parts[0]
    whole.SegmentsOverlap = "YES"
    whole.SegmentSequence = list(descriptions)
    whole.PixelData = _joined_bits(parts)
    items, segments = [], []
    for part, layer in zip(parts, layers, strict=True):
        _tell_each_frame(part)
        for item in part.PerFrameFunctionalGroupsSequence:
            items.append(item)
            segments.append(layer[int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1] + 1)
    whole.PerFrameFunctionalGroupsSequence = items
    whole.NumberOfFrames = len(items)
    positions = [tuple(float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient) for item in items]
    normal = np.cross(*np.reshape(_orientation(whole), (2, 3)))
    ranks = {p: rank for rank, p in enumerate(sorted(set(positions), key=lambda p: float(normal @ p)), start=1)}
    for item, segment, position in zip(items, segments, positions, strict=True):
        item.SegmentIdentificationSequence[0].ReferencedSegmentNumber = segment
        item.FrameContentSequence[0].DimensionIndexValues = [segment, ranks[position]]
    return whole


def _tell_each_frame(part: Segmentation) -> None:
    """Move functional groups that highdicom shares between all frames of a part to each frame."""
    shared = part.SharedFunctionalGroupsSequence[0]
    for element in [element for element in shared if element.keyword not in _SAME_IN_ALL_PARTS]:
        for item in part.PerFrameFunctionalGroupsSequence:
            item.add(deepcopy(element))
        del shared[element.tag]


def _orientation(seg: Segmentation) -> list[float]:
    shared = seg.SharedFunctionalGroupsSequence[0]
    return [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]


def _joined_bits(parts: Sequence[Segmentation]) -> bytes:
    """Bits of all parts' frames one after the other; a frame need not end with a byte (PS3.5 8.2)."""
    n_bits = [int(part.Rows) * int(part.Columns) * int(part.NumberOfFrames) for part in parts]
    if all(n % 16 == 0 for n in n_bits):
        return b"".join(part.PixelData[: n // 8] for part, n in zip(parts, n_bits, strict=True))
    bits = [
        np.unpackbits(np.frombuffer(part.PixelData, np.uint8), count=n, bitorder="little")
        for part, n in zip(parts, n_bits, strict=True)
    ]
    packed = np.packbits(np.concatenate(bits), bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def _description(
    number: int, descriptor: SegmentDescriptor, result: CaseResult, algorithm: AlgorithmType
) -> SegmentDescription:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    coding = descriptor.coding
    item = SegmentDescription(
        segment_number=number,
        segment_label=descriptor.label,
        segmented_property_category=coded(coding.category),
        segmented_property_type=coded(coding.type),
        algorithm_type=algorithm,
        algorithm_identification=None if algorithm == "MANUAL" else _algorithm(result),
        tracking_uid=descriptor.tracking_uid,
        tracking_id=descriptor.label,
        anatomic_regions=None if coding.region is None else [coded(coding.region)],
    )
    _add_sides(item, coding)
    item.SegmentDescription = descriptor.description
    names = result.candidates.class_names
    item.RecommendedDisplayCIELabValue = cielab(class_colours(names)[names.index(descriptor.name)])
    return item


def _add_sides(item: Dataset, coding: Coding) -> None:
    if coding.modifier is not None:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [coded(coding.modifier)]
    if coding.region_modifier is not None:
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [coded(coding.region_modifier)]


def _algorithm(result: CaseResult) -> AlgorithmIdentificationSequence:
    """The model and the software that ran it (PS3.3, table 10-19)."""
    record = result.record
    return AlgorithmIdentificationSequence(
        name=printable(record.model_name)[:64] or MANUFACTURER,
        family=codes.DCM.ArtificialIntelligence,
        version=record.model_sha256[:16] or "unknown",
        source=MANUFACTURER,
        parameters={"software": record.software, "score_threshold": f"{result.score_threshold:g}"},
    )


def coded(term: Term) -> CodedConcept:
    """A term as highdicom takes it."""
    return CodedConcept(term.value, term.scheme, term.meaning)


def cielab(colour: tuple[int, int, int]) -> list[int]:
    """An sRGB colour as PCS-value L*, a*, b* in 16 bits (PS3.3 C.10.7.1.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    to_xyz_d50 = np.array(
        [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    )
    white = np.array([0.96422, 1.0, 0.82521])
    ratio = to_xyz_d50 @ linear / white
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lightness, a, b = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    scaled = (lightness / 100 * 65535, (a + 128) / 255 * 65535, (b + 128) / 255 * 65535)
    return [int(np.clip(round(float(v)), 0, 65535)) for v in scaled]


def _measures(result: CaseResult, source: SourceSeries) -> PixelMeasuresSequence:
    """Pixel Spacing and the step between slices, which is also their thickness (PS3.3 C.7.6.16.2.1)."""
    frame, affine = source.frames[0], result.candidates.grid.affine_vox_to_ras
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    step = abs(float(affine[:3, 0] @ normal / np.linalg.norm(normal)))
    spacing = step if len(source.frames) > 1 else None
    return PixelMeasuresSequence(pixel_spacing=frame.spacing_mm, slice_thickness=step, spacing_between_slices=spacing)


def _position(source: SourceSeries, d: int) -> PlanePositionSequence:
    return PlanePositionSequence(CoordinateSystemNames.PATIENT, source.frames[d].position_lps_mm)


def _name_dimensions(seg: Segmentation, uids: ResultUIDs) -> None:
    """Replace the one UID that highdicom draws at random by one of ours (PS3.3 C.7.6.17)."""
    uid = uids.other("SEG", "dimensions")
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid

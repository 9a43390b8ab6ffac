"""Reads RTSTRUCT (DICOM RT Structure Set), outlines drawn on a scan, as instances on the scan's grid.

Each region of interest is one instance. Contours are placed by their points, never by Referenced SOP Instances; their
planes may be perpendicular to any axis of the grid. DICOM PS3.3, C.8.8.5 (structure set) and C.8.8.6 (contours).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.io.labels.contours import Contour, fill_stack
from medmaskrcnn.io.labels.label_set import LabelledObject, LabelSet, collect
from medmaskrcnn.structures.grid import FloatArray, Grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

_FLAT_VOX = 0.1
"""How far a contour's points may deviate from its plane, in voxels."""

_XOR = "CLOSEDPLANAR_XOR"
_AREAS = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR", "INTERPOLATED_PLANAR", _XOR})
_OPEN_NAMES = {
    "POINT": "points",
    "OPEN_PLANAR": "open lines",
    "OPEN_NONPLANAR": "open lines in space",
    "CLOSED_NONPLANAR": "closed lines that lie on no plane",
}


def read_rtstruct(path: Path, volume: Volume) -> LabelSet:
    """Fill the outlines of an RTSTRUCT on a scan's grid.

    Args:
        path: The RTSTRUCT.
        volume: The scan on which it was drawn, or another in its frame of reference.

    Returns:
        One instance per region of interest, in the file's order, with the region's name as class. Regions without a
        closed outline are left out, which is noted.

    Raises:
        ReadError: if the file is damaged, belongs to another frame of reference, or an outline is oblique to the grid.
    """
    with convert_read_errors(path, "RTSTRUCT"):
        structures = dcmread(path, force=True)
        notes: list[str] = []
        names = {_number(r.ROINumber): _name(r) for r in structures.get("StructureSetROISequence") or []}
        if not names:
            raise ReadError(f"{path} holds no region of interest; it is empty or damaged")
        classes = _class_names(structures, names)
        notes += _check_frame(path, structures, volume)
        found = []
        drawn = {_number(c.ReferencedROINumber): c for c in structures.get("ROIContourSequence") or []}
        for number, name in names.items():
            contours = list(_contours(drawn.get(number), name, volume.grid, notes, path))
            if not contours:
                notes.append(f"{name!r} has no closed outline; it is left out.")
                continue
            mask = _fill(contours, volume.grid.shape, name, notes, path)
            if mask.is_empty:
                notes.append(f"{name!r} has outlines, but no voxel's centre inside them; its mask is empty.")
            found.append(LabelledObject(classes[number], mask))
        return collect(volume.grid, found, notes)


def rtstruct_class_names(path: Path) -> tuple[str, ...]:
    """Class names of an RTSTRUCT's regions, without reading their outlines.

    Raises:
        ReadError: if the file is damaged.
    """
    with convert_read_errors(path, "RTSTRUCT"):
        structures = dcmread(path, force=True)
        names = {_number(r.ROINumber): _name(r) for r in structures.get("StructureSetROISequence") or []}
        return tuple(dict.fromkeys(_class_names(structures, names).values()))


def _number(value: object) -> int:
    return int(str(value))


def _name(region: Dataset) -> str:
    return str(region.get("ROIName") or "").strip() or f"ROI {region.ROINumber}"


def _class_names(structures: Dataset, names: dict[int, str]) -> dict[int, str]:
    """ROI Name is a class, unless a shorter text begins it: "tumour" of "tumour 2".

    That text is the ROI Observation Label (3006,0085), or the ROI Description (3006,0028) up to a semicolon.
    """
    classes = dict(names)
    for region in structures.StructureSetROISequence:
        text = str(region.get("ROIDescription") or "").partition(";")[0].strip()
        if text and names[_number(region.ROINumber)].startswith(text):
            classes[_number(region.ROINumber)] = text
    for observation in structures.get("RTROIObservationsSequence") or []:
        number = _number(observation.ReferencedROINumber)
        label = str(observation.get("ROIObservationLabel") or "").strip()
        if label and names.get(number, "").startswith(label):
            classes[number] = label
    return classes


def _check_frame(path: Path, structures: Dataset, volume: Volume) -> list[str]:
    """Refuse outlines of another frame of reference: their coordinates are not valid here.

    An object that names the scan's own images was drawn on them, whatever frame of reference its writer invented
    (rt-utils before 2023); returns a note about that.
    """
    origin = volume.provenance
    ours = origin.frame_of_reference_uid
    theirs = {
        str(uid)
        for place, keyword in (
            ("StructureSetROISequence", "ReferencedFrameOfReferenceUID"),
            ("ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"),
        )
        for item in structures.get(place) or []
        if (uid := item.get(keyword))
    }
    if not ours or not theirs or ours in theirs:
        return []
    if not set(origin.sop_instance_uids).isdisjoint(_named_images(structures)):
        return ["It names another frame of reference than the scan's, but the scan's own images; these count."]
    raise ReadError(
        f"{path} was drawn in another frame of reference ({', '.join(sorted(theirs))}) than the scan ({ours}). "
        f"Give the scan that it was drawn on"
    )


def _named_images(structures: Dataset) -> Iterator[str]:
    """SOP Instance UIDs of the images that the object was drawn on."""
    for frame in structures.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                for image in series.get("ContourImageSequence") or []:
                    yield str(image.get("ReferencedSOPInstanceUID"))
    for drawn in structures.get("ROIContourSequence") or []:
        for contour in drawn.get("ContourSequence") or []:
            for image in contour.get("ContourImageSequence") or []:
                yield str(image.get("ReferencedSOPInstanceUID"))


def _contours(
    drawn: Dataset | None, name: str, grid: Grid, notes: list[str], path: Path
) -> Iterator[tuple[FloatArray, bool]]:
    """Index coordinates D, H, W ``(N, 3)`` of each closed outline of a region, and whether it is an XOR contour."""
    ignored: dict[str, int] = {}
    for contour in (drawn.get("ContourSequence") if drawn is not None else None) or []:
        kind = str(contour.get("ContourGeometricType") or "CLOSED_PLANAR")
        values = np.array(contour.get("ContourData") or [], dtype=np.float64)
        if values.size % 3 or not np.isfinite(values).all():
            raise ReadError(f"{path}: an outline of {name!r} has {values.size} numbers, not three a point; damaged")
        if kind not in _AREAS or values.size < 9:
            what = _OPEN_NAMES.get(kind, "outlines of fewer than three points" if kind in _AREAS else kind)
            ignored[what] = ignored.get(what, 0) + 1
            continue
        lps = values.reshape(-1, 3)
        yield grid.ras_to_coordinate(lps * [-1, -1, 1]) - 0.5, kind == _XOR
    notes += [f"{name!r}: {n} {what} enclose nothing and are left out." for what, n in ignored.items()]


def _fill(
    contours: list[tuple[FloatArray, bool]], shape: tuple[int, int, int], name: str, notes: list[str], path: Path
) -> Mask:
    """One region's mask, tight."""
    axis = _stacking_axis([points for points, _ in contours], name, path)
    rows, columns = (a for a in range(3) if a != axis)
    low = np.min([points.min(axis=0) for points, _ in contours], axis=0)
    high = np.max([points.max(axis=0) for points, _ in contours], axis=0)
    if (low < -0.5).any() or (high > np.array(shape) - 0.5).any():
        notes.append(f"{name!r} reaches beyond the scan; what lies outside is cut off.")
    start = np.clip(np.floor(low) - 1, 0, np.array(shape) - 1).astype(np.int64)
    end = np.clip(np.ceil(high) + 2, start + 1, shape).astype(np.int64)
    # Interpolation reaches beyond the outermost planes by half a step, at most the whole stack.
    start[axis], end[axis] = 0, shape[axis]
    local = [
        Contour(float(np.median(points[:, axis])), points[:, [rows, columns]] - start[[rows, columns]], exclusive)
        for points, exclusive in contours
    ]
    size = end - start
    filled, told = fill_stack(local, (int(size[axis]), int(size[rows]), int(size[columns])))
    notes += [f"{name!r}: {sentence}." for sentence in told]
    return Mask(start, np.moveaxis(filled, 0, axis)).tight()


def _stacking_axis(contours: list[FloatArray], name: str, path: Path) -> int:
    """The grid axis to which the planes of all outlines are perpendicular."""
    spread = np.array([np.ptp(points, axis=0) for points in contours])
    worst = spread.max(axis=0)
    axis = int(worst.argmin())
    if worst[axis] > _FLAT_VOX * 2:
        raise ReadError(
            f"{path}: outlines of {name!r} are oblique to the scan's voxels (off their plane by up to "
            f"{worst[axis] / 2:.2f} voxels). Give the scan that it was drawn on"
        )
    return axis

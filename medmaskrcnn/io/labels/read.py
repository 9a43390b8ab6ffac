"""Entry point for labels: outlines, segmentations and label maps become instances on a scan's grid.

For training and evaluation: an RTSTRUCT, a DICOM SEG, a label map in any image format that is supported, or our own
result (instances.npz). The type of a file is detected from its content.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.header import read_header
from medmaskrcnn.io.dicom.sop_classes import NOT_IMAGES
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.io.labels.coco import coco_class_names, read_coco
from medmaskrcnn.io.labels.dicom_seg import read_seg, seg_class_names
from medmaskrcnn.io.labels.label_maps import labels_of_map
from medmaskrcnn.io.labels.label_set import LabelSet
from medmaskrcnn.io.labels.label_volume import read_label_volume
from medmaskrcnn.io.labels.rtstruct import read_rtstruct, rtstruct_class_names
from medmaskrcnn.io.labels.slicer_seg import labels_of_slicer, slicer_segments
from medmaskrcnn.io.nifti import nifti_label_names
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import MapKind
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume

_LOG = logging.getLogger(__name__)


def read_labels(
    path: str | os.PathLike[str],
    volume: Volume,
    *,
    names: Mapping[int, str] | None = None,
    kind: MapKind = "instance",
) -> Instances:
    """Read the labels of a scan; notes are logged (:func:`load_labels` returns them).

    Args:
        path: An RTSTRUCT, a DICOM SEG, a label map (NIfTI, NRRD, MetaImage, PNG, TIFF), COCO JSON, or instances.npz; or
            a folder with one RTSTRUCT or SEG in it.
        volume: The labelled scan, whose grid the result has.
        names: Class names by value, for label maps; other values are background.
        kind: For label maps: ``"instance"`` (each value is an object) or ``"semantic"`` (each value is a class, objects
            are its connected components).

    Returns:
        The labels as instances on ``volume.grid``, in the file's order, with score 1. They may overlap.

    Raises:
        ReadError: if the file holds no labels, is damaged, or belongs to another scan.

    Example:
        >>> scan = read_volume("CT")  # doctest: +SKIP
        >>> read_labels("RS.dcm", scan).class_names  # doctest: +SKIP
        ('GTV',)
    """
    labels = load_labels(path, volume, names=names, kind=kind)
    for note in labels.notes:
        _LOG.warning("%s: %s", path, note)
    return labels.instances


def load_labels(
    path: str | os.PathLike[str],
    volume: Volume,
    *,
    names: Mapping[int, str] | None = None,
    kind: MapKind = "instance",
) -> LabelSet:
    """As :func:`read_labels`, with the notes."""
    if kind not in ("instance", "semantic"):
        raise ValueError(f"kind must be 'instance' or 'semantic', got {kind!r}")
    source = _only_file(Path(path))
    if zipfile.is_zipfile(source):
        return _from_result(source, volume)
    if source.suffix.lower() == ".json":
        files = volume.provenance.files
        return LabelSet(read_coco(source, volume.grid, picture=Path(files[0]).stem if files else None))
    found = sniff(source)
    if found != "DICOM":
        return _from_map(source, found, volume, names, kind)
    header = read_header(source)
    if header.non_image == "RTSTRUCT":
        return read_rtstruct(source, volume)
    if header.non_image == "SEG":
        return read_seg(source, volume)
    what = NOT_IMAGES[header.non_image] if header.non_image else "an image, not labels"
    raise ReadError(f"{source} is {what}. Give an RTSTRUCT, a SEG or a label map")


def class_names_in(path: Path) -> tuple[str, ...] | None:
    """Class names that a label file gives, without decoding its masks; ``None`` for a label map without any.

    Raises:
        ReadError: if the file is damaged or holds no labels.
    """
    if zipfile.is_zipfile(path):
        return load_case(path).candidates.class_names
    if path.suffix.lower() == ".json":
        return coco_class_names(path)
    what = sniff(path)
    if what == "NRRD" and (segments := slicer_segments(path)):
        return tuple(dict.fromkeys(segment.name for segment in segments))
    if what == "NIfTI" and (names := nifti_label_names(path)):
        return tuple(dict.fromkeys(names.values()))
    if what != "DICOM":
        return None
    kind = read_header(path).non_image
    if kind == "RTSTRUCT":
        return rtstruct_class_names(path)
    if kind == "SEG":
        return seg_class_names(path)
    raise ReadError(f"{path} is {NOT_IMAGES[kind] if kind else 'an image, not labels'}. Give an RTSTRUCT or a SEG")


def _from_map(path: Path, what: str | None, volume: Volume, names: Mapping[int, str] | None, kind: MapKind) -> LabelSet:
    """Read a label map, with the names that its own header gives where none are given."""
    label_map = read_label_volume(path)
    if what == "NRRD" and names is None and (segments := slicer_segments(path)):
        return labels_of_slicer(path, segments, label_map, volume, kind=kind)
    own_names = nifti_label_names(path) if what == "NIfTI" else {}
    return labels_of_map(path, label_map, volume, names=names, own_names=own_names, kind=kind)


def _only_file(path: Path) -> Path:
    """The label file at a path: the file itself, or the only label object in a folder."""
    if os.path.isfile(path):  # noqa: PTH113 - also of a name that no file can have
        return path
    if not os.path.isdir(path):  # noqa: PTH112
        raise ReadError(f"{path} does not exist. Check the spelling")
    files = sorted(p for p in path.rglob("*") if p.is_file() and sniff(p) == "DICOM")
    found = [p for p in files if read_header(p).non_image in ("RTSTRUCT", "SEG")]
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:5])
        raise ReadError(f"{path} must hold one RTSTRUCT or SEG, it holds {len(found)}: {names or 'none'}. Name a file")
    return found[0]


def _from_result(path: Path, volume: Volume) -> LabelSet:
    """Read our own result, which must be on the scan's grid."""
    instances = load_case(path).instances
    same = instances.grid.shape == volume.grid.shape and np.allclose(
        instances.grid.affine_vox_to_ras, volume.grid.affine_vox_to_ras, atol=1e-3
    )
    if not same:
        raise ReadError(
            f"{path} was made on a grid of {instances.grid.shape}, the scan's grid is {volume.grid.shape} or lies "
            f"elsewhere. Give the scan that it was made from"
        )
    return LabelSet(instances)

"""Data sets in the layout of the Medical Segmentation Decathlon (https://medicaldecathlon.com).

``dataset.json`` names the classes and pairs images with maps of classes; here each such map becomes a map of
instances: a class's voxels in a case are one object, or one object per connected component. The data set's own folder
is only read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.errors import ReadError
from medmaskrcnn.training.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn_datasets.files import make_folder
from medmaskrcnn_datasets.manifest import located, write_manifest
from medmaskrcnn_datasets.nifti import save_image
from medmaskrcnn_datasets.splits import SplitRule

InstanceRule = Literal["one", "components"]

AFFINE_TOLERANCE_MM = 1e-2
"""Image and label may differ so much in their affines: float32 headers written by different programs."""
WHOLE_NUMBER_TOLERANCE = 1e-3
"""Label maps stored as scaled floats come back so close to whole numbers."""


@dataclass(frozen=True)
class MsdDescription:
    """What a ``dataset.json`` says.

    Attributes:
        folder: The data set's folder.
        name, licence: As stated.
        modality: DICOM's word for it, ``"MR"`` or ``"CT"``, or ``None`` for others and mixtures.
        classes: Class name of each label value, background left out.
        pairs: Case id, image and label of each training case.
    """

    folder: Path
    name: str
    licence: str
    modality: str | None
    classes: dict[int, str]
    pairs: tuple[tuple[str, Path, Path], ...]


def msd_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    rule: InstanceRule = "one",
    least_voxels: int = 1,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] = str,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a manifest for the training cases of a data set in MSD layout.

    Args:
        folder: Holds ``dataset.json``; it may be read-only.
        out_dir: Gets ``manifest.json``, and with ``"components"`` the maps of instances in ``labels/``.
        rule: ``"one"``: each label value in a case is one instance. ``"components"``: each connected component
            (26 neighbours) of a value is one.
        least_voxels: Components smaller than this are left out (``"components"`` only).
        splits: Who is for validation and testing; ``None`` leaves every case's split open.
        patient_of: Patient of a case id; by default each case is a patient of its own.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Paths in it are relative where the data lies under ``out_dir``, else absolute.

    Raises:
        ReadError: if ``dataset.json`` or a case is missing, damaged or contradicts itself.
        ValueError: if ``splits`` names patients that are not there.
        OutputError: if ``out_dir`` cannot be written.
    """
    description = read_description(folder)
    target = make_folder(out_dir).resolve()
    split_of = splits.assign([patient_of(case) for case, _, _ in description.pairs]) if splits else {}
    cases = []
    for case, image, label in description.pairs:
        truth, found = _label_map(case, image, label)
        values = _present(case, label, found, description.classes)
        path, instances = label, tuple(ManifestInstance(value=v, class_name=description.classes[v]) for v in values)
        if rule == "components":
            separate, instances = _split_components(case, found, description.classes, values, least_voxels)
            path = target / "labels" / f"{case}_instances.nii.gz"
            save_image(_like(truth, separate), path)
        patient = patient_of(case)
        cases.append(
            ManifestCase(
                id=case,
                patient=patient,
                image=located(image, target),
                label=located(path, target),
                split=split_of.get(patient),
                instances=instances,
            )
        )
        if progress:
            progress(len(cases), len(description.pairs))
    names = tuple(description.classes[v] for v in sorted(description.classes))
    manifest = Manifest(
        name=description.name,
        modality=description.modality,
        licence=description.licence,
        class_names=names,
        cases=tuple(cases),
    )
    return write_manifest(manifest, target / "manifest.json")


def read_description(folder: Path | str) -> MsdDescription:
    """Read ``dataset.json``; no image is opened.

    Raises:
        ReadError: if it is missing, no JSON, or lacks labels or training cases.
    """
    root = Path(folder).resolve()
    path = root / "dataset.json"
    content = _json_object(path)
    labels, training = content.get("labels"), content.get("training")
    if not isinstance(labels, dict) or not isinstance(training, list) or not training:
        raise ReadError(f"{path} must hold 'labels' and a list 'training', got keys {sorted(content)}")
    try:
        classes = {int(value): str(name) for value, name in labels.items()}
    except ValueError as error:
        raise ReadError(f"{path}: 'labels' must map numbers to names, 1 to 'liver', got {labels}") from error
    classes.pop(0, None)
    pairs = []
    for entry in training:
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise ReadError(f"{path}: each training case must name 'image' and 'label', got {entry!r}")
        image, label = (root / str(entry[key]) for key in ("image", "label"))
        pairs.append((image.name.removesuffix(".gz").removesuffix(".nii"), image, label))
    licence = str(content.get("licence") or content.get("license") or "unknown")
    modality = _modality(content.get("modality"))
    return MsdDescription(root, str(content.get("name") or root.name), licence, modality, classes, tuple(pairs))


def _label_map(case: str, image: Path, label: Path) -> tuple[nibabel.Nifti1Image, NDArray[np.int64]]:
    """The label file and its values as integers, in NIfTI's axis order, checked against the image's grid."""
    try:
        scan, truth = nibabel.nifti1.load(image), nibabel.nifti1.load(label)
        values = np.asanyarray(truth.dataobj)
    except (OSError, ImageFileError, EOFError, ValueError) as error:
        raise ReadError(f"case {case!r}: cannot read {image} and {label}: {error}") from error
    if scan.shape[:3] != truth.shape:
        raise ReadError(f"case {case!r}: image {scan.shape} and label {truth.shape} differ in shape: {label}")
    if np.abs(scan.affine - truth.affine).max() > AFFINE_TOLERANCE_MM:
        raise ReadError(f"case {case!r}: image and label lie in different places: {label}")
    whole: NDArray[np.int64] = np.rint(values).astype(np.int64)
    if np.abs(values - whole).max(initial=0) > WHOLE_NUMBER_TOLERANCE:
        raise ReadError(f"case {case!r}: the label map must hold whole numbers: {label}")
    return truth, whole


def _present(case: str, label: Path, values: NDArray[np.int64], classes: dict[int, str]) -> list[int]:
    """Label values that occur, without background."""
    found = [int(v) for v in np.unique(values) if v != 0]
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ReadError(f"case {case!r}: label values {unknown} are not in dataset.json ({sorted(classes)}): {label}")
    return found


def _split_components(
    case: str, source: NDArray[np.int64], classes: dict[int, str], values: Sequence[int], least_voxels: int
) -> tuple[NDArray[np.uint16], tuple[ManifestInstance, ...]]:
    """A map in which each component of each value has a value of its own, largest first within a class."""
    separate = np.zeros(source.shape, np.uint16)
    instances: list[ManifestInstance] = []
    for value in values:
        components, _ = ndimage.label(source == value, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        kept = [int(c) for c in np.argsort(-sizes, kind="stable") if sizes[c] >= max(1, least_voxels)]
        table = np.zeros(len(sizes), np.int64)
        table[kept] = len(instances) + 1 + np.arange(len(kept))
        instances += [ManifestInstance(value=int(table[c]), class_name=classes[value]) for c in kept]
        if len(instances) > np.iinfo(np.uint16).max:
            raise ReadError(f"case {case!r} has more than 65,535 components. Leave the smallest out (least_voxels).")
        separate += table[components].astype(np.uint16)
    return separate, tuple(instances)


def _like(original: nibabel.Nifti1Image, values: NDArray[np.uint16]) -> nibabel.Nifti1Image:
    """An image with other values and the original's header."""
    image = nibabel.Nifti1Image(values, original.affine, original.header, dtype=np.uint16)
    image.header.set_slope_inter(1, 0)
    return image


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}. Is this a folder in MSD layout?") from error
    except ValueError as error:
        raise ReadError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReadError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _modality(stated: object) -> str | None:
    """``{"0": "MRI T2"}`` to ``"MR"``; one word for all channels or ``None``."""
    words = [str(v).upper() for v in (stated.values() if isinstance(stated, dict) else [stated])]
    known = {"MR" if w.startswith("MR") else "CT" if w.startswith("CT") else None for w in words}
    return known.pop() if len(known) == 1 else None

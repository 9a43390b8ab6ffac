"""Adds a reviewed result as a case to a manifest, which training reads.

The scan is copied as NIfTI beside the manifest, without patient data; the instances become label maps, as many as
their overlaps require.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, Split, read_manifest
from medmaskrcnn.errors import OutputError
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import paint_labels
from medmaskrcnn.structures.overlap import pack_layers
from medmaskrcnn.structures.volume import Volume

_PATIENT_LETTERS = 12
_ID_LETTERS = 8


class CaseExists(ValueError):
    """The scan is a case of the manifest already; :attr:`case_id` is its id."""

    def __init__(self, case_id: str) -> None:
        super().__init__(f"this scan is {case_id} of the manifest already")
        self.case_id = case_id


def add_training_case(
    path: Path, result: CaseResult, volume: Volume, split: Split | None, *, replace: bool = False
) -> str:
    """Add the result's instances and their scan to a manifest; the manifest is created if it does not exist.

    A case is named after its scan's voxels, so that the same scan, wherever it is read from, is one case and one
    patient.

    Args:
        path: The manifest; the case's files go into a folder beside it.
        result: The result, whose kept instances are the ground truth.
        volume: The scan.
        split: The split that the case belongs to, ``None`` if undecided.
        replace: If the scan is a case already, replace its instances and split.

    Returns:
        The case's id.

    Raises:
        CaseExists: if the scan is a case already and is not to be replaced.
        OutputError: if something cannot be written, or the scan is a colour image.
        ReadError: if there is a file of that name that is not a manifest.
    """
    from medmaskrcnn.export.nifti import write_nifti
    from medmaskrcnn_datasets.manifest import write_manifest  # only this button needs it

    if volume.channel_kind == "colour":
        raise OutputError("a colour picture cannot be a training case as NIfTI; add it to the manifest by hand")
    found = result.instances
    manifest = read_manifest(path) if path.exists() else _new_manifest(path, volume, found)
    digest = _digest(volume)
    case_id = f"case-{digest[:_ID_LETTERS]}"
    others = tuple(case for case in manifest.cases if case.id != case_id)
    if len(others) < len(manifest.cases) and not replace:
        raise CaseExists(case_id)
    folder = path.parent / case_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}. Choose another place") from error
    images = [f"{case_id}/image{f'_{c}' if c else ''}.nii.gz" for c in range(volume.array.shape[0])]
    for name, channel in zip(images, volume.array, strict=True):
        write_nifti(_storable(channel), volume.grid, path.parent / name)
    maps, instances = _label_maps(found)
    labels = [f"{case_id}/labels{f'_{m}' if m else ''}.nii.gz" for m in range(len(maps))]
    for name, values in zip(labels, maps, strict=True):
        write_nifti(values, volume.grid, path.parent / name)
    case = ManifestCase(
        id=case_id,
        patient=_patient(volume, digest),
        image=images[0] if len(images) == 1 else tuple(images),
        label=None if not labels else labels[0] if len(labels) == 1 else tuple(labels),
        split=split,
        instances=instances,
    )
    names = tuple(dict.fromkeys((*manifest.class_names, *(i.class_name for i in instances))))
    written = manifest.model_copy(update={"class_names": names, "cases": (*others, case)})
    write_manifest(Manifest.model_validate(written.model_dump(by_alias=True)), path)
    return case_id


def _new_manifest(path: Path, volume: Volume, found: Instances) -> Manifest:
    return Manifest(name=path.stem, modality=volume.modality, class_names=found.class_names, cases=())


def _label_maps(found: Instances) -> tuple[list[NDArray[np.uint16]], tuple[ManifestInstance, ...]]:
    """Label maps without overlaps, and the meaning of their values."""
    layers = pack_layers(found.masks)
    maps = [paint_labels([found.masks[i] for i in layer], found.grid.shape, np.uint16) for layer in layers]
    instances = tuple(
        ManifestInstance(value=value, class_name=found.class_names[found.labels[i]], map=number)
        for number, layer in enumerate(layers)
        for value, i in enumerate(layer, start=1)
    )
    return maps, instances


def _storable(channel: NDArray[Any]) -> NDArray[Any]:
    """Values in a type that NIfTI programs read: 16- or 32-bit integers or float32."""
    if channel.dtype in (np.int16, np.uint8, np.int32, np.float32):
        return channel
    wide = np.issubdtype(channel.dtype, np.integer) and np.abs(channel.astype(np.int64)).max(initial=0) < 2**31
    return channel.astype(np.int32 if wide else np.float32)


def _digest(volume: Volume) -> str:
    """A name for a scan that depends on its voxels and their place alone."""
    found = hashlib.sha256(volume.affine_vox_to_ras.tobytes())
    found.update(f"{volume.array.shape} {volume.array.dtype}".encode())
    for channel in volume.array:
        for part in channel:
            found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def _patient(volume: Volume, digest: str) -> str:
    """One pseudonym for all scans of a study, so that they stay in one split; it does not identify the patient."""
    study = volume.provenance.study_uid
    return (hashlib.sha256(study.encode()).hexdigest() if study else digest)[:_PATIENT_LETTERS]

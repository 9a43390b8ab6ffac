"""A labelled case prepared for the network: the preprocessed image, and each object's soft mask cropped to its box.

Labels are resampled to the network's grid object by object with the same interpolation as the image, so a voxel that
is half filled by an object has the value one half: boundaries keep their subvoxel position, unlike with
nearest-neighbour resampling. Objects may overlap (a tumour in a liver), which one label map could not represent.
Regions to ignore are prepared alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from scipy import ndimage
from torch import Tensor

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.inference.prepare import prepare, resize_matrix, turned_spacing
from medmaskrcnn.settings import ModelFileSettings, PreprocessSettings
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.system.threads import use_one_thread

_STRAY_SHARE = 0.05  # of the largest component's voxels
_FORMAT = 2  # version of the prepared files
_CASES_PER_PROCESS = 8  # at least; starting a process takes seconds
_FULL = 255  # occupancy is stored as 0..255 in one byte


@dataclass(frozen=True, eq=False)
class TrainingObject:
    """One object on the network's grid.

    Attributes:
        label: Class index.
        mask: Soft mask, uint8, 255 where the object fills the voxel.
    """

    label: int
    mask: Mask


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A prepared case.

    Attributes:
        id: Case id.
        image: ``(C, D, H, W)`` float16.
        objects: Its objects.
        ignored: Soft mask, as of objects, of all regions to ignore together; ``None`` if there is none.
        annotated: For each class of the model, whether it was annotated; ``None``: all were.
        spacing_mm: The scan's own voxels along the network's D, H, W; ``None`` if unknown.
    """

    id: str
    image: Tensor
    objects: tuple[TrainingObject, ...]
    ignored: Mask | None = None
    annotated: tuple[bool, ...] | None = None
    spacing_mm: tuple[float, float, float] | None = None


def load_case_for_training(
    manifest: Manifest,
    case: ManifestCase,
    settings: PreprocessSettings,
    *,
    class_names: Sequence[str] | None = None,
) -> LabelledCase:
    """Read and prepare one case of a manifest.

    Args:
        manifest: The manifest.
        case: The case.
        settings: The model's preprocessing.
        class_names: The model's classes, in its order (default: the manifest's); objects and ignored regions of other
            classes are left out.

    Raises:
        ReadError: if image or label map cannot be read, are not on one grid, or the labels are not integers.
    """
    scan = read_case(manifest, case)
    prepared = prepare(scan.volume, settings)
    before, after = scan.volume.grid.shape, tuple(prepared.tensor.shape[1:])
    turned = [before[axis] for axis in prepared.axes.order]
    matrices = [resize_matrix(a, b, antialias=settings.antialias) for a, b in zip(turned, after, strict=True)]
    classes = {name: i for i, name in enumerate(class_names or manifest.class_names)}
    objects = []
    for one in scan.objects:
        if one.class_name in classes:
            mask = _without_strays(prepared.axes.apply_mask(one.mask, before))
            objects.append(TrainingObject(classes[one.class_name], _soft_mask(mask, matrices)))
    ignored = [
        _soft_mask(prepared.axes.apply_mask(region.mask, before), matrices)
        for region in scan.ignored
        if region.class_name is None or region.class_name in classes
    ]
    annotated = tuple(name in scan.annotated for name in classes)
    return LabelledCase(
        case.id,
        prepared.tensor.half(),
        tuple(objects),
        ignored[0].union(*ignored[1:]) if ignored else None,
        None if all(annotated) else annotated,
        turned_spacing(scan.volume, prepared.axes),
    )


def _soft_mask(mask: Mask, matrices: list[Tensor]) -> Mask:
    """Occupancy of each voxel of the network's grid by an object, 0..255."""
    crop, start = torch.from_numpy(mask.array.astype(np.float32)), []
    for axis, (matrix, columns_filled) in enumerate(zip(matrices, mask.window, strict=True)):
        columns = matrix[:, columns_filled]
        rows = torch.nonzero(columns.sum(dim=1)).flatten()
        first, last = int(rows[0]), int(rows[-1]) + 1
        start.append(first)
        crop = torch.tensordot(columns[first:last], crop, dims=([1], [axis])).movedim(0, axis)
    return Mask(start, (crop * _FULL).round().clamp(0, _FULL).to(torch.uint8).contiguous().numpy())


def _without_strays(mask: Mask) -> Mask:
    """The mask without components far smaller than its largest: annotation slips that would enlarge the box."""
    islands, count = ndimage.label(mask.array)
    if count < 2:
        return mask
    sizes = np.bincount(islands.ravel())
    sizes[0] = 0
    return Mask(mask.start, (sizes >= _STRAY_SHARE * sizes.max())[islands])


def prepare_cases(
    manifest: Manifest,
    cases: Sequence[ManifestCase],
    settings: ModelFileSettings,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Prepare cases once and save them as files, from which training reads windows without loading the rest.

    Args:
        manifest: The manifest.
        cases: The cases to prepare.
        settings: Preprocessing and classes.
        folder: Folder for the files; existing files that are up to date are reused.
        workers: Number of processes.
        progress: Called with the number of cases done and the number of cases to prepare.

    Returns:
        One file per case, in the order of ``cases``.

    Raises:
        ReadError: as :func:`load_case_for_training`.
        OutputError: if a file cannot be written.
    """
    make_folder(folder)
    files = [folder / f"{_fingerprint(manifest, settings, case)}.safetensors" for case in cases]
    missing = [(case, path) for case, path in zip(cases, files, strict=True) if not path.exists()]
    if not missing:
        return files
    workers = min(workers, len(missing) // _CASES_PER_PROCESS)
    with ExitStack() as stack:
        run: Callable[..., Iterable[None]] = map
        if workers > 1:
            context = get_context("spawn")
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=use_one_thread)
            run = stack.enter_context(pool).map
        for done, _ in enumerate(run(partial(_prepare, manifest, settings), *zip(*missing, strict=True)), start=1):
            if progress:
                progress(done, len(missing))
    return files


def open_prepared(path: Path) -> LabelledCase:
    """Open a prepared case; its tensors are memory-mapped."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["case"])
        objects = tuple(
            TrainingObject(label, Mask(start, file.get_tensor(f"object.{i}").numpy()))
            for i, (label, start) in enumerate(about["objects"])
        )
        start = about["ignored"]
        ignored = None if start is None else Mask(start, file.get_tensor("ignored").numpy())
        annotated = None if about["annotated"] is None else tuple(about["annotated"])
        spacing = about.get("spacing_mm")  # files of older versions lack it
        known = None if spacing is None else (spacing[0], spacing[1], spacing[2])
        return LabelledCase(about["id"], file.get_tensor("image"), objects, ignored, annotated, known)


def _prepare(manifest: Manifest, settings: ModelFileSettings, case: ManifestCase, path: Path) -> None:
    prepared = load_case_for_training(manifest, case, settings.preprocess, class_names=settings.model.class_names)
    about = {
        "id": case.id,
        "objects": [[item.label, item.mask.start] for item in prepared.objects],
        "ignored": None if prepared.ignored is None else prepared.ignored.start,
        "annotated": prepared.annotated,
        "spacing_mm": prepared.spacing_mm,
    }
    masks = {f"object.{i}": torch.tensor(item.mask.array) for i, item in enumerate(prepared.objects)}
    if prepared.ignored is not None:
        masks["ignored"] = torch.tensor(prepared.ignored.array)
    write_bytes(path, save({"image": prepared.image, **masks}, {"case": json.dumps(about)}))


def _fingerprint(manifest: Manifest, settings: ModelFileSettings, case: ManifestCase) -> str:
    """Hash of everything a prepared case depends on: size and modification time of the files, the settings."""
    files = [manifest.path(name) for name in (*case.images, *case.label_maps)]
    seen = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) if f.exists() else str(f) for f in files]
    made_by = settings.preprocess.model_dump_json(), settings.model.class_names, case.model_dump_json()
    return sha256(json.dumps([_FORMAT, seen, made_by]).encode()).hexdigest()[:32]

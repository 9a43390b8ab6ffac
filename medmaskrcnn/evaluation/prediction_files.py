"""Finds the predictions of any tool for the cases of a manifest: which files belong to which case.

Tools name their files after the image: ``CASE.nii.gz`` (nnU-Net), ``CASE_cp_masks.png`` (cellpose), a folder ``CASE/``
with one object file (SEG, RTSTRUCT, COCO, a result of ours) or one mask for each class (TotalSegmentator), or one COCO
file for all images.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import nibabel as nib

from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.coco import coco_pictures, read_coco_document

OWN_RESULT = "instances.npz"
OWN_LABEL_MAP = ("labels.nii.gz", "instances.csv")

_MAPS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff")
_SUFFIXES = (*_MAPS, ".dcm", ".json", ".npz")
_ADDED = re.compile(r"_(cp_masks?|masks?|segmentations?|seg|predictions?|pred|labels?|instances)$", re.IGNORECASE)
_NO_PREDICTIONS = frozenset({"dataset.json", "plans.json", "predict_from_raw_data_args.json"})
_LABEL_ENTRY = re.compile(r'<Label Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]+)')


def find_predictions(source: Path, manifest: Manifest, cases: Sequence[ManifestCase]) -> dict[str, tuple[Path, ...]]:
    """The prediction of each case: one file, or the masks of its classes; cases without one are left out.

    Args:
        source: A folder of predictions, or one file.
        manifest: The manifest.
        cases: Cases of it whose predictions are wanted.

    Raises:
        ReadError: if there is nothing, nothing belongs to a case, or several files could be a case's prediction.
    """
    if not source.exists():
        raise ReadError(f"{source} does not exist. Check the spelling")
    if source.is_file():
        return _in_one_file(source, cases)
    by_name = {name: case.id for case in cases for name in _names_of(case)}
    images = {manifest.path(name).resolve() for case in cases for name in case.images}
    named: dict[str, dict[bool, list[Path]]] = defaultdict(lambda: defaultdict(list))
    inside: dict[str, list[Path]] = defaultdict(list)
    files = [file for file in _files(source) if file.resolve() not in images]
    for file in files:
        stem = _stem(file)
        bare = _ADDED.sub("", stem)
        if stem in by_name or bare in by_name:
            named[by_name.get(stem) or by_name[bare]][stem in by_name].append(file)
            continue
        folder = next((part for part in reversed(file.relative_to(source).parts[:-1]) if part in by_name), None)
        if folder is not None:
            inside[by_name[folder]].append(file)
    found: dict[str, tuple[Path, ...]] = {
        case: _only(case, files[False] or files[True]) for case, files in named.items()
    }
    found |= {case: _of_folder(case, files) for case, files in inside.items() if case not in found}
    if not found:
        shared = [file for file in files if file.suffix.lower() == ".json" and _is_coco(file)]
        found = dict(_in_one_file(shared[0], cases)) if len(shared) == 1 else {}
    if not found:
        examples = ", ".join(case.id for case in cases[:3])
        raise ReadError(
            f"{source} holds no prediction that is named after a case of {manifest.name} ({examples}, ...): its "
            f"{len(files)} files are {', '.join(file.name for file in files[:3]) or 'none'}"
        )
    return found


def values_of_classes(source: Path, file: Path) -> dict[str, tuple[int, ...]] | None:
    """Class names and their values in a label map, as the tool wrote them down beside or inside it; else ``None``.

    nnU-Net leaves a ``dataset.json`` with its predictions (a region has several values), TotalSegmentator writes names
    into the NIfTI header.

    Args:
        source: The folder of predictions.
        file: One of its label maps.

    Raises:
        ReadError: if such a ``dataset.json`` is damaged.
    """
    for folder in dict.fromkeys((file.parent, source if source.is_dir() else source.parent)):
        if (folder / "dataset.json").is_file():
            return _of_dataset_json(folder / "dataset.json")
    return _of_nifti_header(file) if file.name.endswith((".nii", ".nii.gz")) else None


def is_label_map(file: Path) -> bool:
    """Whether a file of predictions is an image of labels, by its name."""
    return file.name.lower().endswith(_MAPS)


def class_of_mask(file: Path) -> str:
    """The class of a mask that is one of several in a case's folder: its file's name."""
    return _stem(file)


def pictures_of(case: ManifestCase) -> tuple[str, ...]:
    """Names by which a COCO file may call a case's image, without folder and extension."""
    return _names_of(case)


def _names_of(case: ManifestCase) -> tuple[str, ...]:
    stems = [_stem(Path(PurePosixPath(name).name)) for name in case.images]
    return tuple(
        dict.fromkeys((case.id, case.id.rpartition("/")[2], *stems, *(re.sub(r"_0000$", "", s) for s in stems)))
    )


def _files(folder: Path) -> list[Path]:
    """Files of known kinds, without hidden ones and what describes the predictions."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place) / name
            for name in sorted(files)
            if name.lower().endswith(_SUFFIXES) and not name.startswith(".") and name not in _NO_PREDICTIONS
        ]
    return [file for file in found if file.suffix.lower() != ".npz" or file.name == OWN_RESULT]


def _stem(file: Path) -> str:
    """File name without its extension, ``.nii.gz`` being one."""
    suffix = next((s for s in _SUFFIXES if file.name.lower().endswith(s)), file.suffix)
    return file.name[: len(file.name) - len(suffix)]


def _only(case: str, files: Sequence[Path]) -> tuple[Path, ...]:
    if len(files) > 1:
        names = ", ".join(str(file) for file in files[:4])
        raise ReadError(f"case {case} has {len(files)} predictions: {names}. Leave one of them in the folder")
    return tuple(files)


def _of_folder(case: str, files: Sequence[Path]) -> tuple[Path, ...]:
    """The prediction in a case's own folder: our result before its exports, one object file before masks of classes."""
    own = [file for file in files if file.name == OWN_RESULT]
    if own:
        return _only(case, own)
    objects = [file for file in files if file.suffix.lower() == ".dcm"]
    objects = objects or [file for file in files if file.suffix.lower() == ".json" and _is_coco(file)]
    if objects:
        return _only(case, objects)
    labels = [file for file in files if file.name == OWN_LABEL_MAP[0]]
    return _only(case, labels) if labels else tuple(file for file in files if is_label_map(file))


def _in_one_file(file: Path, cases: Sequence[ManifestCase]) -> dict[str, tuple[Path, ...]]:
    """One file: a COCO file about the images of many cases, or the prediction of a single case."""
    if file.suffix.lower() == ".json":
        pictures = set(coco_pictures(file))
        about = [case.id for case in cases if pictures & set(_names_of(case))]
        if about:
            return {case: (file,) for case in about}
    if len(cases) != 1:
        raise ReadError(f"{file} is one file for {len(cases)} cases: give the folder of predictions, or a single case")
    return {cases[0].id: (file,)}


def _is_coco(file: Path) -> bool:
    try:
        return bool(read_coco_document(file))
    except ReadError:
        return False


def _of_dataset_json(file: Path) -> dict[str, tuple[int, ...]]:
    """``labels`` of nnU-Net (name to value, or values of a region) or of the Decathlon (value to name)."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8-sig"))["labels"]
        if all(str(key).isdigit() for key in labels):
            labels = {str(name): int(value) for value, name in labels.items()}
        named = {str(n): tuple(map(int, v)) if isinstance(v, list) else (int(v),) for n, v in labels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(f"{file} does not tell the labels of the predictions beside it: {error}") from error
    return {name: values for name, values in named.items() if values != (0,) and name != "ignore"}


def _of_nifti_header(file: Path) -> dict[str, tuple[int, ...]] | None:
    try:
        extensions = nib.Nifti1Image.from_filename(file).header.extensions
    except Exception:  # whatever is wrong with it, the reader of the map says it
        return None
    for one in extensions:
        content = one.get_content()
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        named: dict[str, tuple[int, ...]] = {
            name.strip(): (int(value),) for value, name in _LABEL_ENTRY.findall(text) if int(value)
        }
        if named:
            return named
    return None

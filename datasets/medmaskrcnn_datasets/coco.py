"""COCO JSON: 2D images with polygons or RLE masks (https://cocodataset.org/#format-data).

Overlapping objects go to several label maps. Crowds (``iscrowd``) are regions of many objects, not single objects.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.coco import decode_mask
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, LabelFiles, assemble, json_object
from medmaskrcnn_datasets.label_files import describe_image, write_label_maps
from medmaskrcnn_datasets.splits import SplitRule

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Document:
    """A COCO file, checked as far as possible without its images."""

    path: Path
    images: dict[Any, dict[str, Any]]
    classes: dict[Any, str]
    annotations: dict[Any, list[dict[str, Any]]]
    licence: str


def coco_dataset(
    file: Path | str,
    out_dir: Path | str,
    *,
    images: Path | str | None = None,
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for a COCO JSON file.

    Args:
        file: The JSON.
        out_dir: Gets ``manifest.json`` and label maps in ``labels/``.
        images: The folder of images; by default they are searched beside the file, in ``images/`` and in a folder named
            after the file's last word (``train2017`` for ``instances_train2017.json``), there and one folder up.
        rename: New names of categories; an empty one leaves the category out.
        name: Name of the data set; by default the file's.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id (the image's path without extension, ``/`` as ``_``); by default the id.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Annotations without a pixel, without a mask (box only), and crowds are left out;
        their number is logged.

    Raises:
        ReadError: if the file is not a COCO JSON, or an image is missing or of another size.
        ValueError: if ``splits`` names unknown patients, or ``rename`` unknown categories.
        OutputError: if ``out_dir`` cannot be written.
    """
    document = _read(Path(file).resolve())
    new_names = dict(rename or {})
    unknown = sorted(set(new_names) - set(document.classes.values()))
    if unknown:
        raise ValueError(f"unknown categories {unknown}; there are {', '.join(document.classes.values())}")
    classes = {key: new_names.get(one, one) for key, one in document.classes.items()}
    cases = tuple(
        _case(document, key, _picture(document.path, str(image["file_name"]), images), classes)
        for key, image in document.images.items()
    )
    _tell_left_out(document)
    names = tuple(dict.fromkeys(one for one in classes.values() if one))
    found = FoundDataset(name or document.path.stem, None, document.licence, names, cases)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, progress=progress)


def is_coco(content: object) -> bool:
    """True if a JSON file's content has the keys of a COCO file with annotations."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _read(path: Path) -> _Document:
    content = json_object(path, "a COCO file")
    if not is_coco(content):
        raise ReadError(f"{path} must hold 'images', 'annotations' and 'categories', got keys {sorted(content)}")
    try:
        images = {image["id"]: image for image in content["images"] if str(image["file_name"])}
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            if one["image_id"] not in images:
                raise ReadError(
                    f"{path}: annotation {one.get('id')} belongs to image {one['image_id']}, which is not there"
                )
            if one["category_id"] not in classes:
                raise ReadError(f"{path}: annotation {one.get('id')} has the unknown category {one['category_id']}")
            annotations[one["image_id"]].append(one)
        licences = [str(one.get("name", "")) for one in content.get("licenses") or []]
    except (KeyError, TypeError, AttributeError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error
    if not images:
        raise ReadError(f"{path} names no image")
    return _Document(path, images, classes, annotations, licences[0] if len(licences) == 1 else "unknown")


def _picture(path: Path, file_name: str, images: Path | str | None) -> Path:
    """Path of an image; in the first of the usual folders if it is in none of them."""
    if images is not None:
        return Path(images).resolve() / file_name
    last_word = path.stem.rpartition("_")[2]
    places = [
        base / sub
        for base in (path.parent, path.parent.parent)
        for sub in ("", "images", last_word, f"images/{last_word}")
    ]
    return next((place / file_name for place in places if (place / file_name).is_file()), path.parent / file_name)


def _case(document: _Document, key: Any, picture: Path, classes: Mapping[Any, str]) -> FoundCase:
    image = document.images[key]
    case = Path(str(image["file_name"])).with_suffix("").as_posix().strip("/.").replace("/", "_")

    def convert(folder: Path) -> LabelFiles:
        shape = describe_image(case, picture).shape
        try:
            stated = (1, int(image["height"]), int(image["width"]))
            if shape is not None and shape[1:] != stated:
                raise ReadError(
                    f"case {case!r}: {picture} is {shape[2]} x {shape[3]} pixels (rows x columns), "
                    f"{document.path} says {stated[1]} x {stated[2]}"
                )
            objects = [_object(one, classes, stated) for one in document.annotations[key] if _is_object(one)]
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"{document.path}: image {key!r} ({case}): {type(error).__name__}: {error}") from error
        wanted = [one for one in objects if one.class_name]
        return write_label_maps(wanted, pixel_grid(stated), folder / case) if wanted else ((), ())

    return FoundCase(case, (picture,), convert)


def _is_object(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("segmentation")) and not annotation.get("iscrowd")


def _object(annotation: Mapping[str, Any], classes: Mapping[Any, str], shape: tuple[int, int, int]) -> LabelledObject:
    mask = decode_mask(annotation["segmentation"], (shape[1], shape[2]))
    return LabelledObject(classes[annotation["category_id"]], Mask((0, 0, 0), mask[None]).tight())


def _tell_left_out(document: _Document) -> None:
    everything = [one for group in document.annotations.values() for one in group]
    crowds = sum(bool(one.get("iscrowd")) for one in everything)
    boxes = sum(not one.get("segmentation") for one in everything)
    if crowds:
        _LOG.warning("%s: %d crowd regions are left out; they are no single objects", document.path, crowds)
    if boxes:
        _LOG.warning("%s: %d annotations have a box but no outline and are left out", document.path, boxes)

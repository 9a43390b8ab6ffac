"""COCO JSON: 2D images with polygons or RLE masks (https://cocodataset.org/#format-data).

Overlapping objects go to several label maps. Crowds (``iscrowd``), which are regions of many objects, and objects of
which only the box is known are regions to ignore. A folder may hold a file for each split, as Roboflow and COCO have
them.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medmaskrcnn.data.case_labels import IgnoredRegion
from medmaskrcnn.data.manifest import Split
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.coco import decode_mask, stated_size
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, LabelFiles, OnEvent, assemble
from medmaskrcnn_datasets.case_table import read_case_table
from medmaskrcnn_datasets.label_files import describe_image, write_label_maps
from medmaskrcnn_datasets.layouts import SPLIT_FOLDERS
from medmaskrcnn_datasets.source_files import files_in, find_file, folders_in, json_object, read_json
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
    split: Split | None


def coco_dataset(
    file: Path | str,
    out_dir: Path | str,
    *,
    images: Path | str | None = None,
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    on_event: OnEvent | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for a COCO JSON file, or for a folder with one for each split.

    Args:
        file: The JSON, or a folder that holds one, or one for each split (``train/_annotations.coco.json``). A
            ``cases.csv`` beside it is read.
        out_dir: Gets ``manifest.json`` and label maps in ``labels/``.
        images: The folder of images; by default they are searched beside the file, in ``images/`` and in a folder named
            after the file's last word (``train2017`` for ``instances_train2017.json``), there and one folder up.
        rename: New names of categories; an empty one leaves the category out.
        name: Name of the data set; by default the file's.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id (the image's path without extension, ``/`` as ``_``); by default as for
            :func:`~medmaskrcnn_datasets.assemble.assemble`.
        on_event: Called with what was assumed; by default it is logged.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest. Annotations without a pixel are left out; crowds, and annotations with a box but no
        outline, are regions to ignore.

    Raises:
        ReadError: if the file is not a COCO JSON, all its annotations are boxes, or an image is missing or of another
            size.
        ValueError: if ``splits`` names unknown patients, or ``rename`` unknown categories.
        OutputError: if ``out_dir`` cannot be written.
    """
    tell = on_event or _LOG.warning
    source = Path(file).resolve()
    documents = [_read(path, split) for path, split in (coco_files(source) if source.is_dir() else [(source, None)])]
    if not documents:
        raise ReadError(f"cannot read {source}: it must hold one COCO JSON, or one for each split (train, valid, test)")
    new_names = dict(rename or {})
    there = list(dict.fromkeys(name for one in documents for name in one.classes.values()))
    unknown = sorted(set(new_names) - set(there))
    if unknown:
        raise ValueError(f"unknown categories {unknown}; there are {', '.join(there)}")
    _tell_regions(documents, tell)
    cases = [
        _case(document, key, _picture(document.path, str(image["file_name"]), images), new_names)
        for document in documents
        for key, image in document.images.items()
    ]
    names = tuple(dict.fromkeys(new for one in there if (new := new_names.get(one, one))))
    root = source if source.is_dir() else source.parent
    table = read_case_table(root, class_names=(*there, *names))
    stated = {document.licence for document in documents}
    licence = stated.pop() if len(stated) == 1 else "unknown"
    found = FoundDataset(name or source.stem, None, licence, names, _own_names(cases), table, new_names)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, on_event=tell, progress=progress)


def coco_files(folder: Path) -> list[tuple[Path, Split | None]]:
    """COCO files of a folder: the only one, or one for each split by the name of the file or its folder; else none."""
    places = (folder, folder / "annotations", *(one for one in folders_in(folder) if one.name.lower() in SPLIT_FOLDERS))
    files = [
        file
        for place in dict.fromkeys(places)
        if place.is_dir()
        for file in files_in(place)
        if file.suffix.lower() == ".json" and is_coco(read_json(file))
    ]
    if len(files) == 1:
        return [(files[0], None)]
    splits = [_split_of(folder, file) for file in files]
    return list(zip(files, splits, strict=True)) if None not in splits and len(set(splits)) == len(splits) else []


def _split_of(folder: Path, file: Path) -> Split | None:
    """Split by the file's own name (``instances_val2017.json``), else by that of its folder."""
    words = re.findall(r"[a-z]+", file.stem.lower())
    named = next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), None)
    return named or (SPLIT_FOLDERS.get(file.parent.name.lower()) if file.parent != folder else None)


def _own_names(cases: Sequence[FoundCase]) -> tuple[FoundCase, ...]:
    """Cases with unique ids, those of one name with their split's in front; each must have a picture of its own."""
    pictures: dict[Path, str] = {}
    for case in cases:
        if case.image[0] in pictures and case.image[0].exists():
            raise ReadError(f"cases {pictures[case.image[0]]} and {case.id} are both of the picture {case.image[0]}")
        pictures[case.image[0]] = case.id
    counts = Counter(case.id for case in cases)
    return tuple(replace(c, id=f"{c.split}_{c.id}") if counts[c.id] > 1 and c.split else c for c in cases)


def is_coco(content: object) -> bool:
    """True if a JSON file's content has the keys of a COCO file with annotations."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _read(path: Path, split: Split | None) -> _Document:
    content = json_object(path, "a COCO file")
    if not is_coco(content):
        raise ReadError(f"{path} must hold 'images', 'annotations' and 'categories', got keys {sorted(content)}")
    try:
        images = {image["id"]: image for image in content["images"] if str(image["file_name"])}
        if len({image["id"] for image in content["images"]}) < len(content["images"]):
            raise ReadError(
                f"{path}: several images have one id, so that annotations could be of either. Number them anew"
            )
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
        _drop_roots(content["categories"], classes, annotations)
        licences = [str(one.get("name", "")) for one in content.get("licenses") or []]
    except (KeyError, TypeError, AttributeError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error
    if not images:
        raise ReadError(f"{path} names no image")
    return _Document(path, images, classes, annotations, licences[0] if len(licences) == 1 else "unknown", split)


def _drop_roots(
    categories: list[dict[str, Any]], classes: dict[Any, str], annotations: Mapping[Any, list[dict[str, Any]]]
) -> None:
    """Take out categories that are only the heading of others, as Roboflow writes one of id 0."""
    used = {one["category_id"] for group in annotations.values() for one in group}
    headings = {str(c.get("supercategory")) for c in categories if str(c.get("supercategory")) != str(c["name"])}
    for key, name in list(classes.items()):
        if key not in used and name in headings:
            del classes[key]


def _picture(path: Path, file_name: str, images: Path | str | None) -> Path:
    """Path of an image; in the first of the usual folders if it is in none of them."""
    if images is not None:
        return find_file((Path(images).resolve(),), file_name)
    last_word = path.stem.rpartition("_")[2]
    places = [
        base / sub
        for base in (path.parent, path.parent.parent)
        for sub in ("", "images", last_word, f"images/{last_word}")
    ]
    return find_file([place for place in places if place.is_dir()], file_name)


def _case(document: _Document, key: Any, picture: Path, new_names: Mapping[str, str]) -> FoundCase:
    image = document.images[key]
    classes = {number: new_names.get(name, name) for number, name in document.classes.items()}
    name = PurePosixPath(str(image["file_name"]).replace("\\", "/")).with_suffix("").as_posix()
    plain = re.sub(r"[\x00-\x1f\x7f]", "_", re.sub(r"^[A-Za-z]:", "", name).strip("/."))
    case = unicodedata.normalize("NFC", plain.replace("/", "_"))

    def convert(folder: Path) -> LabelFiles:
        shape = describe_image(case, picture).shape
        try:
            stated = stated_size(image)
            if stated is None and shape is not None:
                stated = (shape[2], shape[3])
            if stated is None:
                raise ReadError(f"case {case!r}: neither {document.path} nor {picture} tells the size of the image")
            if shape is not None and shape[1:] != (1, *stated):
                raise ReadError(
                    f"case {case!r}: {picture} is {shape[2]} x {shape[3]} pixels (rows x columns), "
                    f"{document.path} says {stated[0]} x {stated[1]}"
                )
            wanted = [one for one in document.annotations[key] if classes[one["category_id"]]]
            objects = [_labelled(one, classes[one["category_id"]], (1, *stated)) for one in wanted]
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"{document.path}: image {key!r} ({case}): {type(error).__name__}: {error}") from error
        return write_label_maps(objects, pixel_grid((1, *stated)), folder / case) if objects else ((), ())

    return FoundCase(case, (picture,), convert, split=document.split)


def _labelled(
    annotation: Mapping[str, Any], class_name: str, shape: tuple[int, int, int]
) -> LabelledObject | IgnoredRegion:
    """An object; a region to ignore if it is a crowd, or if only its box is known."""
    if not annotation.get("segmentation"):
        return IgnoredRegion(class_name, _box_mask(annotation.get("bbox"), shape))
    mask = Mask((0, 0, 0), decode_mask(annotation["segmentation"], (shape[1], shape[2]))[None]).tight()
    return IgnoredRegion(class_name, mask) if annotation.get("iscrowd") else LabelledObject(class_name, mask)


def _box_mask(box: Any, shape: tuple[int, int, int]) -> Mask:
    """All pixels in a box (x, y, width, height in pixels); empty if there is none."""
    if not box:
        return Mask.empty()
    x, y, width, height = (float(number) for number in box)
    inside = np.zeros(shape, np.bool_)
    inside[0, max(0, int(y)) : max(0, int(np.ceil(y + height))), max(0, int(x)) : max(0, int(np.ceil(x + width)))] = (
        True
    )
    return Mask((0, 0, 0), inside).tight()


def _tell_regions(documents: Sequence[_Document], tell: OnEvent) -> None:
    """Tell how many annotations are regions to ignore; refuse files in which all are boxes."""
    everything = [one for document in documents for group in document.annotations.values() for one in group]
    crowds = sum(bool(one.get("iscrowd")) for one in everything)
    boxes = sum(not one.get("segmentation") for one in everything)
    if everything and boxes == len(everything):
        raise ReadError(
            f"{documents[0].path} holds boxes only: none of its {boxes} annotations has a 'segmentation'. Masks cannot "
            "be learnt from boxes; outline the objects, or export the outlines too"
        )
    if crowds:
        tell(f"{documents[0].path}: {crowds} crowd regions are ignored: nothing is to be found there, nothing is false")
    if boxes:
        tell(f"{documents[0].path}: {boxes} annotations have a box but no outline; their boxes are ignored")

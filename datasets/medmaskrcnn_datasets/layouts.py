"""Finds images and their label maps in the folders that people and programs keep them in.

``images/`` and ``masks/`` (or other words for them), perhaps with a folder for each split inside (``images/train``); a
folder for each split with both inside (``train/images``); or label maps beside their images under longer names
(cellpose: ``cell_img.png`` and ``cell_cp_masks.png``). Pascal VOC: ``JPEGImages`` and ``SegmentationObject``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from medmaskrcnn.data.manifest import Split
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.formats import READABLE
from medmaskrcnn_datasets.foreign import foreign_labels
from medmaskrcnn_datasets.source_files import folders_in, scans_in, some, stem_of

IMAGE_FOLDERS = ("images", "image", "imagesTr", "img", "imgs", "scans", "JPEGImages")
MASK_FOLDERS = (
    "masks", "instances", "labels", "labelsTr", "segmentations", "label", "mask", "SegmentationObject",
    "SegmentationClass", "annotations", "ground_truth", "gt",
)  # fmt: skip
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip

_LABEL_ENDINGS = (
    "_cp_masks", "_mask", "_masks", "_label", "_labels", "_labelmap", "_seg", "_segmentation", "_instances", "_gt",
    "-mask", "-masks", "-label", "-labels", "-seg", ".seg",
)  # fmt: skip
_IMAGE_PREFIX = re.compile(r"(?:image|img|im|scan|volume|vol|ct|raw|case)[ _-]?(?=.)", re.IGNORECASE)
_LABEL_PREFIX = re.compile(
    r"(?:masks?|labels?|lbl|segmentation|seg|gt|ground_?truth)[ _-]?(?=.)", re.IGNORECASE
)  # LiTS: volume-0.nii and segmentation-0.nii
_IMAGE_ENDINGS = ("_img", "_image", "_sat")
_OTHER_RESULTS = ("_cp_output", "_flows", "_outlines", "_cp_outlines")  # pictures that cellpose writes beside its masks


@dataclass(frozen=True)
class Pair:
    """An image and its label map.

    Attributes:
        id: The image's name without extension; with its folders where names would be the same.
        image, label: The files.
        split: By the name of a folder, else ``None``.
        patient: The folder that holds the slices of one patient, else ``None``.
    """

    id: str
    image: Path
    label: Path
    split: Split | None = None
    patient: str | None = None


def find_pairs(root: Path) -> list[Pair]:
    """Images and label maps of a data set, by name.

    Raises:
        ReadError: if there are none, two have the same name, an image has no label map, or a label map no image.
    """
    folders = _folder_pairs(root)
    pairs = [pair for split, images, masks in folders for pair in _paired(images, masks, split)]
    if not folders:
        pairs = _side_by_side(root)
    if not pairs:
        raise ReadError(
            f"{root} must hold a folder of images ({', '.join(IMAGE_FOLDERS)}) and one of label maps "
            f"({', '.join(MASK_FOLDERS)}), or images with label maps beside them (a.png and a_mask.png)"
        )
    return _with_own_names(pairs)


def label_folder_name(root: Path) -> str:
    """Name of the folder of label maps, ``"masks"``; empty where they lie beside the images."""
    folders = _folder_pairs(root)
    return folders[0][2].name if folders else ""


def has_pairs(root: Path) -> bool:
    """Whether a folder holds images with label maps in one of the known layouts."""
    if not root.is_dir():
        return False
    try:
        return bool(_folder_pairs(root) or _side_by_side(root))
    except ReadError:
        return True  # some images lie beside their label maps, others lack theirs


def image_and_mask_folders(root: Path) -> tuple[Path, Path]:
    """The folder of images and that of label maps directly in a data set.

    Raises:
        ReadError: if there are none of the usual names.
    """
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    if images is None or masks is None:
        raise ReadError(
            f"{root} must hold a folder of images ({', '.join(IMAGE_FOLDERS)}) and one of label maps "
            f"({', '.join(MASK_FOLDERS)})"
        )
    return images, masks


def paired_files(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    """Id, image and label map of each case of two folders; errors as :func:`find_pairs`."""
    return [(pair.id, pair.image, pair.label) for pair in _paired(images, masks, None)]


def _folder_pairs(root: Path) -> list[tuple[Split | None, Path, Path]]:
    """Folders of images and of their label maps, and the split that they are of."""
    found: list[tuple[Split | None, Path, Path]] = []
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    if images is not None and masks is not None:
        for split, one in _split_folders(images):
            if (masks / one.name).is_dir():
                found.append((split, one, masks / one.name))
        return found or [(None, images, masks)]
    for split, folder in _split_folders(root):
        images, masks = _named(folder, IMAGE_FOLDERS), _named(folder, MASK_FOLDERS)
        if images is not None and masks is not None:
            found.append((split, images, masks))
    return found


def _split_folders(folder: Path) -> list[tuple[Split, Path]]:
    return [(SPLIT_FOLDERS[one.name.lower()], one) for one in folders_in(folder) if one.name.lower() in SPLIT_FOLDERS]


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these subfolders, in whatever case its letters are."""
    there = {one.name.lower(): one for one in folders_in(folder)} if folder.is_dir() else {}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def _paired(images: Path, masks: Path, split: Split | None) -> list[Pair]:
    scans, maps = scans_in(images), scans_in(masks)
    labels = {stem_of(file): file for file in maps}
    found: dict[str, Pair] = {}
    used: set[Path] = set()
    alone = []
    for image in scans:
        case = stem_of(image)
        label = _label_of(case, labels)
        if case in found:
            raise ReadError(f"{found[case].image} and {image} have one name; each case needs its own")
        if label is None:
            alone.append(image.name)
        else:
            found[case] = Pair(case, image, label, split)
            used.add(label)
    if not scans:
        raise ReadError(f"{images} holds no file that can be read as an image: {READABLE}")
    if not maps:
        raise ReadError(foreign_labels(masks) or f"{masks} holds no file that can be read as a label map: {READABLE}")
    if alone and images.name != "JPEGImages":  # Pascal VOC has segmentations of some of its pictures
        raise ReadError(
            f"{len(alone)} images of {images} have no label map in {masks}: {some(alone)}. "
            "A case without objects needs an empty map"
        )
    over = [file.name for file in maps if file not in used]
    if over:
        raise ReadError(
            f"{masks} holds label maps without an image in {images}: {some(over)}. "
            "Add the images, or take these label maps out"
        )
    return list(found.values())


def _side_by_side(root: Path) -> list[Pair]:
    """Label maps beside their images: in the folder, in one for each split, or in one for each patient.

    Raises:
        ReadError: if only some of the images have label maps, or a label map has no image.
    """
    found: list[Pair] = []
    alone: list[Path] = []
    for folder in (root, *folders_in(root)):
        files = {stem_of(file): file for file in scans_in(folder)}
        split = SPLIT_FOLDERS.get(folder.name.lower()) if folder != root else None
        patient = folder.name if folder != root and split is None else None
        labels = {stem: file for stem, file in files.items() if stem.endswith(_LABEL_ENDINGS)}
        images = {stem: file for stem, file in files.items() if not stem.endswith((*_LABEL_ENDINGS, *_OTHER_RESULTS))}
        pairs = {stem: label for stem in images if (label := _label_of(stem, labels)) is not None}
        found += [Pair(stem, images[stem], label, split, patient) for stem, label in pairs.items()]
        if not pairs:
            continue
        alone += [file for stem, file in images.items() if stem not in pairs]
        alone += [file for file in labels.values() if file not in pairs.values()]
    if alone:
        raise ReadError(
            f"{len(alone)} files of {root} have no image or no label map beside them: "
            f"{some([file.name for file in alone])}. A case without objects needs an empty map"
        )
    return found


def _label_of(case: str, labels: dict[str, Path]) -> Path | None:
    """The label map of an image: of the same name but for the usual endings, or for the word that begins it."""
    case = case.casefold()
    folded = {stem.casefold(): file for stem, file in labels.items()}
    labels = folded if len(folded) == len(labels) else labels
    stems = [case, *(case[: -len(ending)] for ending in _IMAGE_ENDINGS if case.endswith(ending) and case != ending)]
    wanted = [stem + ending for stem in stems for ending in ("", *_LABEL_ENDINGS)]
    named = next((labels[name] for name in wanted if name in labels), None)
    if named is not None:
        return named
    core = _IMAGE_PREFIX.sub("", case, count=1)
    alike = [
        file
        for stem, file in labels.items()
        if _LABEL_PREFIX.match(stem) and _LABEL_PREFIX.sub("", stem, count=1) == core
    ]
    return alike[0] if len(alike) == 1 else None


def _with_own_names(pairs: list[Pair]) -> list[Pair]:
    """Pairs whose ids are unique: those of one name get their split's or their patient's in front."""
    counts = Counter(pair.id for pair in pairs)
    return [
        replace(pair, id=f"{pair.split or pair.patient}_{pair.id}") if counts[pair.id] > 1 else pair for pair in pairs
    ]

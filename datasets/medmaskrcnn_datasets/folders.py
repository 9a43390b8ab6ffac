"""Adapters for folders of images and label maps paired by name, and for a folder per image with a mask per object.

Label maps are *instance* maps (each object has its own number, as in microscopy) or *semantic* maps (as segmentation
networks write them). Images may be 2D images or scans of any readable format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medmaskrcnn.data.case_labels import same_grid, values_in
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_set import LabelledObject
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.assemble import CountProgress, FoundCase, FoundDataset, LabelFiles, assemble, stem_of
from medmaskrcnn_datasets.class_maps import class_map_converter
from medmaskrcnn_datasets.label_files import read_label_map, write_label_maps
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.splits import SplitRule

IMAGE_FOLDERS = ("images", "image", "imagesTr", "img", "scans")
MASK_FOLDERS = ("masks", "instances", "labels", "labelsTr", "segmentations", "label", "mask")
_LABEL_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_instances")
_MOST_NAMED = 5


def instances_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    class_name: str = "object",
    name: str | None = None,
    modality: str | None = None,
    licence: str = "unknown",
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for images with instance masks.

    Args:
        folder: Holds ``images/`` and ``masks/`` with files of equal names, each mask an integer map with one number
            per object; or a folder per image, each with ``images/`` (one file) and ``masks/`` (one file per object,
            nonzero inside it), as in Data Science Bowl 2018.
        out_dir: Gets ``manifest.json``; label maps in ``labels/`` are written only for one file per object.
        class_name: Class of the objects.
        name: Name of the data set; by default the folder's.
        modality: DICOM modality, for scans; ``None`` for 2D images such as PNG.
        licence: Licence of the data.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default each image is a patient of its own.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest.

    Raises:
        ReadError: if images and masks do not fit together, or one cannot be read.
        ValueError: if ``splits`` names unknown patients.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    if is_folder_per_image(root):
        cases = tuple(_case_of_folder(one, class_name) for one in sorted(root.iterdir()) if _has_masks(one))
    else:
        cases = tuple(
            FoundCase(case, (image,), _instance_converter(case, image, label, class_name))
            for case, image, label in paired_files(*image_and_mask_folders(root))
        )
    found = FoundDataset(name or root.name, modality, licence, (class_name,), cases)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, progress=progress)


def semantic_dataset(
    folder: Path | str,
    out_dir: Path | str,
    *,
    classes: Mapping[int, str],
    rules: ClassRules | None = None,
    name: str | None = None,
    modality: str | None = None,
    licence: str = "unknown",
    splits: SplitRule | None = None,
    patient_of: Callable[[str], str] | None = None,
    progress: CountProgress | None = None,
) -> Path:
    """Write a manifest for images with semantic label maps.

    Args:
        folder: Holds ``images/`` and ``labels/`` with files of equal names, the label's perhaps with ``_seg`` or the
            like appended.
        out_dir: Gets ``manifest.json``, and instance maps in ``labels/`` where the rules need them.
        classes: Class of each value; several values may have one class. Values that it lacks are background.
        rules: What one object is; by default each connected part of a class.
        name: Name of the data set; by default the folder's.
        modality: DICOM modality, for scans; ``None`` for 2D images such as PNG.
        licence: Licence of the data.
        splits: Patients for validation and testing; ``None`` leaves every case's split undecided.
        patient_of: Patient of a case id; by default each image is a patient of its own.
        progress: Called with the number of cases done and their total.

    Returns:
        Path of the manifest.

    Raises:
        ReadError: if images and labels do not fit together, or one cannot be read.
        ValueError: if ``splits`` names unknown patients, or ``rules`` unknown classes.
        OutputError: if ``out_dir`` cannot be written.
    """
    root = Path(folder).resolve()
    rules = rules or ClassRules("components")
    groups: dict[str, list[int]] = {}
    for value, class_name in sorted(classes.items()):
        if value < 1:
            raise ValueError(f"values of classes must be 1 or more, 0 is background; got {value} for {class_name!r}")
        groups.setdefault(class_name, []).append(value)
    cases = tuple(
        FoundCase(case, (image,), class_map_converter(case, image, label, groups, rules, background=None))
        for case, image, label in paired_files(*image_and_mask_folders(root))
    )
    found = FoundDataset(name or root.name, modality, licence, tuple(rules.named(groups)), cases)
    return assemble(found, out_dir, splits=splits, patient_of=patient_of, progress=progress)


def image_and_mask_folders(root: Path) -> tuple[Path, Path]:
    """The folder of images and that of label maps in a data set.

    Raises:
        ReadError: if there are none of the usual names.
    """
    images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    masks = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if images is None or masks is None:
        raise ReadError(
            f"{root} must hold a folder of images ({', '.join(IMAGE_FOLDERS)}) and one of label maps "
            f"({', '.join(MASK_FOLDERS)})"
        )
    return images, masks


def paired_files(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    """Id, image and label map of each case, by name.

    Raises:
        ReadError: if there is no image, two have the same name, or one has no label map.
    """
    labels = {stem_of(file): file for file in _files(masks)}
    cases: dict[str, tuple[str, Path, Path]] = {}
    alone = []
    for image in _files(images):
        case = stem_of(image)
        label = next((labels[case + ending] for ending in _LABEL_ENDINGS if case + ending in labels), None)
        if case in cases:
            raise ReadError(f"{cases[case][1]} and {image} have one name; each case needs its own")
        if label is None:
            alone.append(image.name)
        else:
            cases[case] = (case, image, label)
    if alone:
        more = f" and {len(alone) - _MOST_NAMED} more" if len(alone) > _MOST_NAMED else ""
        raise ReadError(
            f"{len(alone)} images of {images} have no label map in {masks}: {', '.join(alone[:_MOST_NAMED])}{more}. "
            "A case without objects needs an empty map"
        )
    if not cases:
        raise ReadError(f"{images} holds no file")
    return list(cases.values())


def is_folder_per_image(root: Path) -> bool:
    """True if the folder's subfolders hold ``images/`` and ``masks/``, and the folder itself does not."""
    if not root.is_dir() or (root / "images").is_dir():
        return False
    return any(_has_masks(one) for one in sorted(root.iterdir()))


def _has_masks(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _instance_converter(case: str, image: Path, label: Path, class_name: str) -> Callable[[Path], LabelFiles]:
    def convert(_: Path) -> LabelFiles:
        values, _grid = read_label_map(case, image, label)
        return (label,), tuple(ManifestInstance(value=v, class_name=class_name) for v in values_in(values))

    return convert


def _case_of_folder(folder: Path, class_name: str) -> FoundCase:
    images = _files(folder / "images")
    if len(images) != 1:
        raise ReadError(f"{folder / 'images'} must hold one image, it holds {len(images)}")
    masks = _files(folder / "masks")

    def convert(labels: Path) -> LabelFiles:
        return write_label_maps(
            _objects(images[0], masks, class_name), read_volume(images[0]).grid, labels / folder.name
        )

    return FoundCase(folder.name, (images[0],), convert)


def _objects(image: Path, masks: Sequence[Path], class_name: str) -> list[LabelledObject]:
    """One object from each mask file; empty masks are left out."""
    grid = read_volume(image).grid
    found = []
    for path in masks:
        mask = read_volume(path)
        if not same_grid(mask.grid, grid):
            raise ReadError(f"{path} is {mask.grid.shape} voxels (D, H, W), its image {image} is {grid.shape}")
        found.append(LabelledObject(class_name, Mask((0, 0, 0), (mask.array != 0).any(axis=0)).tight()))
    return [one for one in found if not one.mask.is_empty]

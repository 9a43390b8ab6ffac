"""Cases with semantic label maps, as in MSD, nnU-Net and folders of segmentations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medmaskrcnn.data.case_labels import values_in
from medmaskrcnn.data.manifest import ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.assemble import LabelFiles
from medmaskrcnn_datasets.label_files import read_label_map, write_label_maps
from medmaskrcnn_datasets.objects import ClassRules, objects_of_classes


def class_map_converter(
    case: str,
    image: Path,
    label: Path,
    classes: Mapping[str, Sequence[int]],
    rules: ClassRules,
    *,
    background: Sequence[int] | None = (),
) -> Callable[[Path], LabelFiles]:
    """A function that reads the labels of a case and, where its own map cannot be used, writes new ones.

    Args:
        case: Its id, for error messages and file names.
        image: One of its images; its header is compared with the map's.
        label: Semantic label map; unknown values are refused.
        classes: The data set's class names and their values.
        rules: What one object is.
        background: Values besides 0 that are background; ``None``: all values without a class.

    Raises:
        ValueError: if the rules name an unknown class.
    """
    named = rules.named(classes)
    known = {*(background or ()), *(value for group in classes.values() for value in group)}

    def convert(folder: Path) -> LabelFiles:
        values, grid = read_label_map(case, image, label)
        present = values_in(values)
        unknown = sorted(set(present) - known)
        if unknown and background is not None:
            raise ReadError(f"case {case!r}: label values {unknown} mean nothing, known are {sorted(known)}: {label}")
        if rules.keep_values(named):
            class_of = {value: name for name, group in named.items() for value in group}
            instances = [ManifestInstance(value=v, class_name=class_of[v]) for v in present if v in class_of]
            return (label,), tuple(instances)
        try:
            return write_label_maps(objects_of_classes(values, named, rules), grid, folder / case)
        except ValueError as error:
            raise ReadError(f"case {case!r}: {error}: {label}") from error

    return convert

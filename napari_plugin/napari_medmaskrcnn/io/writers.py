"""napari's Save As: writes Labels layers of a result as DICOM SEG, RTSTRUCT, NIfTI, CSV, HTML or instances.npz.

The layers are written as they are, brush strokes included. They must belong to a scan that the plugin knows, as layers
of a result do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, Review
from medmaskrcnn.structures.label_maps import masks_of_labels
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import replacing
from napari_medmaskrcnn.core.items import Item, to_instances
from napari_medmaskrcnn.core.review_model import NO_SIZE
from napari_medmaskrcnn.io.label_reader import labels_as_result
from napari_medmaskrcnn.layers.display_frame import DisplayFrame

FullLayerData = tuple[Any, dict[str, Any], str]


def write(form: str, path: str, layers: Sequence[FullLayerData]) -> list[str]:
    """Write Labels layers as one file.

    Args:
        form: One of the library's formats: ``"seg"``, ``"rtstruct"``, ``"nifti"``, ``"csv"``, ``"html"``,
            ``"instances"``.
        path: The file to write.
        layers: Layers as passed by napari; those that are not Labels are skipped.

    Returns:
        The path written, as napari expects.

    Raises:
        OutputError: if the layers belong to no known scan, or the file cannot be written.
    """
    result, volume = result_of_layers([layer for layer in layers if layer[2] == "labels"])
    target = Path(path)
    with tempfile.TemporaryDirectory(dir=target.parent if target.parent.is_dir() else None) as folder:
        formats = [] if form == "instances" else [form]
        written = write_result(result, volume, folder, formats=formats)
        with replacing(target) as temporary:
            written[form].replace(temporary)
    return [path]


def result_of_layers(layers: Sequence[FullLayerData]) -> tuple[CaseResult, Volume]:
    """The instances that Labels layers hold, measured on their scan, and that scan.

    Raises:
        OutputError: if there is no Labels layer, or one belongs to no known scan.
    """
    places = [meta.get("metadata", {}).get("medmaskrcnn", {}) for _, meta, _ in layers]
    if not places or any("volume" not in place for place in places):
        raise OutputError(
            "only Labels layers of a result can be written: they know the scan they lie on. "
            "Segment the scan, or open a result, in medmaskrcnn's panel first"
        )
    volume: Volume = places[0]["volume"]
    items: list[Item] = []
    for (data, meta, _), place in zip(layers, places, strict=True):
        items += _items(np.asarray(data), meta, place["frame"], len(items))
    names = tuple(dict.fromkeys(item.class_name for item in items)) or ("object",)
    instances = to_instances(volume.grid, names, sorted(items, key=lambda item: -item.score))
    record = labels_as_result(instances, volume, name="napari").record
    accepted = tuple(range(len(instances)))
    review = Review(accepted=accepted, changed=accepted)
    return CaseResult(instances, 0.5, measure_instances(volume, instances), record, review=review), volume


def _items(data: Any, meta: dict[str, Any], frame: DisplayFrame, number: int) -> list[Item]:
    """The instances on one layer; those missing from the layer's features get its name as their class."""
    features = meta.get("features")
    known: dict[int, tuple[str, float]] = {}
    if features is not None and {"index", "class"} <= set(features):
        scores = features["score"] if "score" in features else [1.0] * len(features["index"])
        rows = zip(features["index"], features["class"], scores, strict=True)
        known = {int(i): (str(name), float(score)) for i, name, score in rows}
    flat = tuple(i for i in range(3) if frame.shape[i] == 1) if data.ndim == 2 else ()
    stored = frame.to_stored(np.expand_dims(data, flat) if flat else data)
    items: list[Item] = []
    for value, mask in masks_of_labels(stored.astype(np.int32)).items():
        name, score = known.get(value, (str(meta.get("name", "object")), 1.0))
        items.append(Item(number + len(items) + 1, name, score, mask.box, mask, NO_SIZE))
    return items


write_seg = partial(write, "seg")
write_rtstruct = partial(write, "rtstruct")
write_nifti = partial(write, "nifti")
write_csv = partial(write, "csv")
write_html = partial(write, "html")
write_instances = partial(write, "instances")

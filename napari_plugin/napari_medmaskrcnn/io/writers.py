"""napari's Save As: writes Labels layers of a result as DICOM SEG, RTSTRUCT, NIfTI, CSV, HTML or instances.npz.

The layers are written as they are, brush strokes included. Layers of a result know their scan; any other Labels layer
is taken to lie on the open scan of its shape and place.
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
from napari_medmaskrcnn.core.new_review import labels_as_result
from napari_medmaskrcnn.core.review_model import NO_SIZE
from napari_medmaskrcnn.layers.display_frame import DisplayFrame
from napari_medmaskrcnn.layers.placement import placement
from napari_medmaskrcnn.layers.scan_of_layer import NoScan, scan_of_layer

try:
    import napari
except ImportError:  # the writers work without a viewer
    napari = None

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
    places = [_place(np.asarray(data), meta) for data, meta, _ in layers]
    if not places:
        raise OutputError("no Labels layer is selected: there is nothing to write")
    volume = places[0][0]
    items: list[Item] = []
    for (data, meta, _), (_, frame) in zip(layers, places, strict=True):
        items += items_of_labels(np.asarray(data), meta, frame, len(items))
    names = tuple(dict.fromkeys(item.class_name for item in items)) or ("object",)
    instances = to_instances(volume.grid, names, sorted(items, key=lambda item: -item.score))
    record = labels_as_result(instances, volume, name="napari").record
    accepted = tuple(range(len(instances)))
    review = Review(accepted=accepted, changed=accepted)
    return CaseResult(instances, 0.5, measure_instances(volume, instances), record, review=review), volume


def _place(data: Any, meta: dict[str, Any]) -> tuple[Volume, DisplayFrame]:
    """The scan that a Labels layer lies on, and how it is shown."""
    ours = meta.get("metadata", {}).get("medmaskrcnn", {})
    if "volume" in ours:
        return ours["volume"], ours["frame"]
    viewer = napari.current_viewer() if napari is not None else None
    for layer in reversed(viewer.layers if viewer is not None else []):
        found = scan_under_labels(data, meta, layer)
        if found is not None:
            return found
    raise OutputError(
        f"{meta.get('name', 'the layer')} does not lie on an open scan: a scan of its shape and place is needed. "
        "Open the scan first"
    )


def scan_under_labels(data: Any, meta: dict[str, Any], layer: Any) -> tuple[Volume, DisplayFrame] | None:
    """The scan of an image layer and how it is shown, if a Labels layer has its shape and lies where it lies."""
    try:
        volume = scan_of_layer(layer) if hasattr(layer, "contrast_limits") else None
    except NoScan:
        return None
    if volume is None:
        return None
    place = placement(volume.grid, layer)
    if data.shape != tuple(place.frame.shape[i] for i in place.keep):
        return None
    own = {name: meta[name] for name in ("scale", "translate") if name in meta}
    same = all(np.allclose(value, np.asarray(getattr(layer, name))[-data.ndim :]) for name, value in own.items())
    return (volume, place.frame) if same else None


def items_of_labels(data: Any, meta: dict[str, Any], frame: DisplayFrame, number: int) -> list[Item]:
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

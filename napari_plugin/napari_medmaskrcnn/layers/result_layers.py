"""A result as napari layers: labels per class, and boxes with names. Pure functions; napari is not imported.

Instances may overlap (a tumour inside a liver), but a Labels layer holds one value per voxel: so every class has a
layer of its own, and overlapping instances of one class go onto further ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.case_result import CaseResult, Measurement
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import paint_labels
from medmaskrcnn.structures.overlap import pack_layers
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.colours import class_rgba, instance_rgba
from napari_medmaskrcnn.layers.display_frame import DisplayFrame, display_frame
from napari_medmaskrcnn.layers.image_layers import LayerData, layer_metadata, shown_axes, world_settings

MAX_RECTANGLES = 1500
"""napari draws each box as one rectangle per slice and needs about 1 ms for each: more are left out."""


def result_to_layers(result: CaseResult, volume: Volume | None = None) -> list[LayerData]:
    """Layers of a result: Labels per class, then one Shapes layer with the boxes.

    A voxel's value is the instance's ``id``, as in ``labels.nii.gz`` and ``instances.csv``; class, score and
    size are in the layers' features, which napari shows under the mouse. Candidates below the threshold are not shown.
    ``volume``, the scan, is kept in the metadata so that a review can continue from the layers.
    """
    instances = result.instances
    measurements = [result.measurements[i] for i in result.kept]
    frame = display_frame(instances.grid)
    keep = shown_axes(instances.grid, frame)
    more = {"result": result, **({} if volume is None else {"volume": volume})}
    common = {"metadata": layer_metadata(instances.grid, frame, **more), **world_settings(frame, keep)}
    dtype = np.uint8 if len(instances) < 2**8 else np.uint16 if len(instances) < 2**16 else np.uint32
    layers: list[LayerData] = []
    for label, class_name in enumerate(instances.class_names):
        members = np.flatnonzero(instances.labels == label)
        for depth, layer in enumerate(pack_layers([instances.masks[i] for i in members])):
            ids = [int(members[k]) + 1 for k in layer]
            data = paint_labels([instances.masks[i - 1] for i in ids], instances.grid.shape, dtype, values=ids)
            name = class_name if depth == 0 else f"{class_name} (overlapping {depth + 1})"
            rows = [_feature_row(instances, measurements, i - 1) for i in ids]
            shown = np.squeeze(frame.to_display(data), axis=tuple(i for i in range(3) if i not in keep))
            settings = {
                "name": _stamped(name, result),
                "features": _columns(rows),
                "colormap": _colours(instances.class_names, class_name, ids),
            }
            layers.append((shown, {**common, **settings}, "labels"))
    return [*layers, *_box_layer(result, instances, frame, keep, common)]


def _colours(class_names: Sequence[str], class_name: str, ids: list[int]) -> dict[int | None, Any]:
    """A colour for each id, from which napari makes a colormap."""
    return {
        None: class_rgba(class_names, class_name),
        0: np.zeros(4, np.float32),
        **{i: instance_rgba(class_names, class_name, i) for i in ids},
    }


def _feature_row(instances: Instances, measurements: list[Measurement], i: int) -> dict[str, Any]:
    """What napari shows of the instance under the mouse; ``index`` links the row to the label's value."""
    size = measurements[i]
    unit = size.unit
    return {
        "index": i + 1,
        "class": instances.class_names[int(instances.labels[i])],
        "score": round(float(instances.scores[i]), 3),
        f"volume_{unit}3" if unit == "mm" else f"volume_{unit}": size.volume_unit3,
        f"longest_axial_diameter_{unit}": size.longest_axial_diameter,
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def _box_layer(
    result: CaseResult, instances: Instances, frame: DisplayFrame, keep: tuple[int, ...], common: dict[str, Any]
) -> list[LayerData]:
    """One Shapes layer: the tight box of every instance as a rectangle on each of its slices, hidden at first."""
    rectangles: list[NDArray[np.float64]] = []
    rows: list[dict[str, Any]] = []
    for i, mask in enumerate(instances.masks):
        corners = frame.coordinate_to_display(np.array([mask.start, mask.end], dtype=np.float64))[:, list(keep)]
        outlines = box_rectangles(corners.min(axis=0), corners.max(axis=0))
        rectangles += outlines
        name = instances.class_names[int(instances.labels[i])]
        rows += [{"id": i + 1, "class": name, "score": float(instances.scores[i])}] * len(outlines)
    if not rectangles or len(rectangles) > MAX_RECTANGLES:
        return []
    settings = {
        "name": _stamped("boxes", result),
        "shape_type": "rectangle",
        "features": _columns(rows),
        "text": {"string": "{class} {score:.2f}", "anchor": "upper_left", "size": 9, "color": "yellow"},
        "edge_color": "yellow",
        "edge_width": 0.6,
        "face_color": "transparent",
        "visible": False,
    }
    return [(rectangles, {**common, **settings}, "shapes")]


def box_rectangles(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Outlines ``(4, S)`` of a box in napari's data coordinates: one in 2D, one on every slice it covers in 3D."""
    corners = np.array([[low[-2], low[-1]], [low[-2], high[-1]], [high[-2], high[-1]], [high[-2], low[-1]]])
    if len(low) == 2:
        return [corners]
    slices = np.arange(np.ceil(low[0]), np.floor(high[0]) + 1)
    return [np.column_stack([np.full(4, at), corners]) for at in slices]


def _stamped(name: str, result: CaseResult) -> str:
    """The layer name, marked if the model was used outside its domain."""
    return f"{name} [out of domain]" if result.record.out_of_domain else name

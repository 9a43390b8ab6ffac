"""A comparison as Labels layers: matched, missed and false objects, and where matched ones differ. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medmaskrcnn.structures.label_maps import paint_labels
from medmaskrcnn.structures.mask import Mask
from napari_medmaskrcnn.core.compare import FALSE, MATCHED, MISSED, Comparison
from napari_medmaskrcnn.layers import colours
from napari_medmaskrcnn.layers.image_layers import LayerData, layer_metadata
from napari_medmaskrcnn.layers.placement import Placement, placement

ONLY_RESULT, ONLY_REFERENCE = 1, 2
"""Values of the layer ``differences``."""

_COLOURS = {MATCHED: colours.MATCHED, MISSED: colours.MISSED, FALSE: colours.FALSE}


def comparison_layers(found: Comparison, place: Placement | None = None) -> list[LayerData]:
    """Labels layers ``matched``, ``missed``, ``only in the result`` and ``differences`` (within matched objects).

    A voxel's value is the object's number among those of its outcome, from 1; of ``differences`` it is
    :data:`ONLY_RESULT` or :data:`ONLY_REFERENCE`. Matched objects are drawn with the result's masks; where objects
    overlap, the later one is on top.
    """
    place = place or placement(found.result.grid)
    outcomes = found.outcomes
    layers: list[LayerData] = []
    for kind, colour in _COLOURS.items():
        members = [one for one in outcomes if one.outcome == kind]
        features = {
            "index": list(range(1, len(members) + 1)),
            "class": [one.class_name for one in members],
            "Dice": [None if one.dice is None else round(one.dice, 3) for one in members],
        }
        colormap = {None: colours.rgba(colour), 0: np.zeros(4, np.float32)}
        settings = {"name": f"{kind} ({len(members)})", "colormap": colormap, "features": features}
        layers.append(_layer(found, place, [one.mask for one in members], settings))
    ours, theirs = found.differing()
    values = [ONLY_RESULT] * len(ours) + [ONLY_REFERENCE] * len(theirs)
    colormap = {
        None: np.zeros(4, np.float32),
        ONLY_RESULT: colours.rgba(colours.FALSE),
        ONLY_REFERENCE: colours.rgba(colours.MISSED),
    }
    features = {"index": [ONLY_RESULT, ONLY_REFERENCE], "voxels": ["only in the result", "only in the reference"]}
    settings = {"name": "differences", "colormap": colormap, "features": features}
    layers.append(_layer(found, place, [*ours, *theirs], settings, values=values))
    return layers


def _layer(
    found: Comparison,
    place: Placement,
    masks: Sequence[Mask],
    settings: dict[str, Any],
    values: Sequence[int] | None = None,
) -> LayerData:
    grid = found.result.grid
    painted = [i for i, mask in enumerate(masks) if not mask.is_empty]
    numbers = [values[i] if values is not None else i + 1 for i in painted]
    data = paint_labels([masks[i] for i in painted], grid.shape, np.uint16, values=numbers)
    flat = tuple(i for i in range(3) if i not in place.keep)
    shown = np.squeeze(place.frame.to_display(data), axis=flat)
    common = {"opacity": 0.6, "metadata": layer_metadata(grid, place.frame), **place.settings}
    return shown, {**common, **settings}, "labels"

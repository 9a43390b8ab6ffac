"""Compares two results of one scan, or a result with its ground truth: matched, missed and false objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medmaskrcnn.evaluation.metrics.matching import CaseSummary, match_case
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import paint_labels
from napari_medmaskrcnn.layers.colours import FALSE, MATCHED, MISSED, rgba
from napari_medmaskrcnn.layers.display_frame import display_frame
from napari_medmaskrcnn.layers.image_layers import LayerData, layer_metadata, shown_axes, world_settings


@dataclass(frozen=True, eq=False)
class Comparison:
    """A result against a reference.

    Attributes:
        result, reference: The instances compared, on one grid.
        summary: Their match: pairs, missed and false objects.
    """

    result: Instances
    reference: Instances
    summary: CaseSummary

    def rows(self) -> list[tuple[str, str, str]]:
        """(class, outcome, Dice) of each object: matched, then missed, then false."""
        matched = [(m.class_name, "matched", f"{m.dice:.2f}") for m in self.summary.matches]
        missed = [(_name(self.reference, i), "missed", "") for i in self.summary.missed]
        false = [(_name(self.result, i), "false", "") for i in self.summary.false_positives]
        return [*matched, *missed, *false]

    def sentence(self) -> str:
        """The outcome in one sentence."""
        s = self.summary
        dice = f", mean Dice {s.mean_dice:.2f}" if s.mean_dice is not None else ""
        return f"{len(s.matches)} matched{dice}, {len(s.missed)} missed, {len(s.false_positives)} false."


def compare(
    result: Instances, reference: Instances, *, iou_threshold: float = 0.5, by_class: bool = True
) -> Comparison:
    """Match a result with a reference.

    Args:
        result: Instances to evaluate.
        reference: Instances to compare with.
        iou_threshold: Mask IoU from which two instances match, in (0, 1].
        by_class: Objects match only if their class names agree; an RTSTRUCT's "GTV", though, may be a tumour.

    Raises:
        ValueError: if the two are not on the same grid.
    """
    if result.grid.shape != reference.grid.shape or not np.allclose(
        result.grid.affine_vox_to_ras, reference.grid.affine_vox_to_ras, atol=1e-3
    ):
        raise ValueError("The two do not lie on the same scan: their grids differ.")
    pair = (result, reference) if by_class else (_of_one_class(result), _of_one_class(reference))
    return Comparison(result, reference, match_case(*pair, iou_threshold=iou_threshold))


def comparison_layers(found: Comparison) -> list[LayerData]:
    """Labels layers ``matched``, ``missed`` and ``false``; a voxel's value is the object's number in its list, from 1.

    Matched objects are drawn with the result's masks; where objects overlap, the later one is on top.
    """
    summary = found.summary
    kinds = (
        ("matched", found.result, [m.predicted for m in summary.matches], MATCHED),
        ("missed", found.reference, list(summary.missed), MISSED),
        ("false", found.result, list(summary.false_positives), FALSE),
    )
    grid = found.result.grid
    frame = display_frame(grid)
    keep = shown_axes(grid, frame)
    flat = tuple(i for i in range(3) if i not in keep)
    layers: list[LayerData] = []
    for name, instances, members, colour in kinds:
        data = paint_labels([instances.masks[i] for i in members], grid.shape, np.uint16)
        dice = [round(m.dice, 3) for m in summary.matches] if name == "matched" else [None] * len(members)
        features = {
            "index": list(range(1, len(members) + 1)),
            "class": [_name(instances, i) for i in members],
            "Dice": dice,
        }
        settings: dict[str, Any] = {
            "name": f"{name} ({len(members)})",
            "colormap": {None: rgba(colour), 0: np.zeros(4, np.float32)},
            "opacity": 0.6,
            "features": features,
            "metadata": layer_metadata(grid, frame),
            **world_settings(frame, keep),
        }
        layers.append((np.squeeze(frame.to_display(data), axis=flat), settings, "labels"))
    return layers


def _name(instances: Instances, i: int) -> str:
    return instances.class_names[instances.labels[i]]


def _of_one_class(instances: Instances) -> Instances:
    return replace(instances, class_names=("object",), labels=np.zeros(len(instances), np.int64))

"""Validation during training: segment the validation cases with the network as it is, and score what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medmaskrcnn.export.preview import draw_preview
from medmaskrcnn.metrics.average_precision import average_precision
from medmaskrcnn.metrics.judging import judge
from medmaskrcnn.metrics.pairing import Kind, PairedCase, pair_case
from medmaskrcnn.metrics.sizes import size_ranges_for
from medmaskrcnn.pipeline import LoadedModel, segment
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.training.labels import read_case, to_instances
from medmaskrcnn.training.manifest import Manifest, ManifestCase

_IOUS = (0.1, 0.5, 0.75)


@dataclass(frozen=True)
class Validation:
    """What the network was worth after so many steps.

    Attributes:
        step: Updates done.
        scores: ``mask_ap10``, ``mask_ap50``, ``mask_ap75`` and ``box_ap50``: COCO's average precision at one IoU, mean
            over classes; what is undefined (no object) is left out.
        per_class: Mask AP at IoU 0.5 by class name.
        pictures: Files with results drawn on the scans.
    """

    step: int
    scores: dict[str, float]
    per_class: dict[str, float]
    pictures: tuple[Path, ...] = ()

    @property
    def score(self) -> float | None:
        """By which the best model is chosen: mask AP, mean of IoU 0.5 and 0.75; boxes where there are no masks."""
        found = [self.scores[name] for name in ("mask_ap50", "mask_ap75") if name in self.scores]
        return sum(found) / len(found) if found else self.scores.get("box_ap50")


def validate(
    loaded: LoadedModel, manifest: Manifest, cases: Sequence[ManifestCase], *, step: int, pictures: Path, most: int = 4
) -> Validation:
    """Segment and score cases.

    Args:
        loaded: The network, in evaluation mode.
        manifest: The manifest.
        cases: The validation cases.
        step: Updates done.
        pictures: Folder, which must exist, for pictures of the first ``most`` cases.
        most: See there.
    """
    names = loaded.settings.model.class_names
    pairs: dict[Kind, list[PairedCase]] = {"mask": [], "box": []}
    drawn = []
    for number, case in enumerate(cases):
        scan = read_case(manifest, case)
        result = segment(scan.volume, loaded, allow_out_of_domain=True)
        reference = to_instances(scan, names)
        for kind, judged in pairs.items():
            judged.append(pair_case(result.candidates, reference, class_names=names, kind=kind, patient=case.patient))
        if number < most:
            drawn.append(pictures / f"{case.id}_{step:06d}.png")
            draw_preview(result, scan.volume).save(drawn[-1])
    by_mask, by_box = _precision(pairs["mask"], names), _precision(pairs["box"], names)
    scores = {f"mask_ap{round(100 * iou)}": value for iou, value in zip(_IOUS, _means(by_mask), strict=True)}
    scores["box_ap50"] = _means(by_box)[_IOUS.index(0.5)]
    per_class = {name: float(value) for name, value in zip(names, by_mask[:, _IOUS.index(0.5)], strict=True)}
    return Validation(step, _defined(scores), _defined(per_class), tuple(drawn))


def _precision(pairs: Sequence[PairedCase], names: Sequence[str]) -> FloatArray:
    """``(K, T)`` average precision, NaN where a class has no object."""
    judged = judge(pairs, names, ranges=size_ranges_for([pair.grid for pair in pairs]), thresholds=_IOUS)
    return average_precision(judged, np.ones((1, len(pairs))), threshold_indices=range(len(_IOUS)))[:, :, 0]


def _means(table: FloatArray) -> list[float]:
    known = [column[~np.isnan(column)] for column in table.T]
    return [float(np.mean(column)) if len(column) else float("nan") for column in known]


def _defined(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}

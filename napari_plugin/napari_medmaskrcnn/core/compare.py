"""Compares two results of one scan, or a result with its ground truth: matched, missed and false objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medmaskrcnn.evaluation.metrics.matching import CaseSummary, match_case
from medmaskrcnn.evaluation.metrics.surface import surface_agreement
from medmaskrcnn.report.units import in_volume_unit
from medmaskrcnn.structures.class_names import match_class_names
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.overlap import shared_voxel_counts

_NUMBERED = re.compile(r"(?:label|class|segment|region|object|value)?[ _-]*\d*", re.IGNORECASE)
"""Names that say nothing: those of a label map that came without names."""

MATCHED, MISSED, FALSE = "matched", "missed", "only in the result"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one object.

    Attributes:
        class_name: Its class; of a match both, where they are called differently.
        outcome: :data:`MATCHED`, :data:`MISSED` or :data:`FALSE`.
        mask: Its voxels; the result's of a match.
        dice: Of a match.
        volume_difference: Result minus reference, mL, or pixels where the scan's spacing is unknown; of a match.
        hd95: 95th percentile of the Hausdorff distance, mm or pixels; of a match.
    """

    class_name: str
    outcome: str
    mask: Mask
    dice: float | None = None
    volume_difference: float | None = None
    hd95: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A result against a reference.

    Attributes:
        result, reference: The instances compared, on one grid, under their own class names.
        summary: Their match: pairs, missed and false objects.
    """

    result: Instances
    reference: Instances
    summary: CaseSummary

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What became of each object: matched, then missed, then false ones."""
        result, reference = self.result, self.reference
        return [
            *(self._matched(m.predicted, m.reference, m.dice) for m in self.summary.matches),
            *(Outcome(_name(reference, i), MISSED, reference.masks[i]) for i in self.summary.missed),
            *(Outcome(_name(result, i), FALSE, result.masks[i]) for i in self.summary.false_positives),
        ]

    def differing(self) -> tuple[list[Mask], list[Mask]]:
        """Of the matched objects: the voxels that only the result has, and those that only the reference has."""
        pairs = [(self.result.masks[m.predicted], self.reference.masks[m.reference]) for m in self.summary.matches]
        return [ours.difference(theirs) for ours, theirs in pairs], [b.difference(a) for a, b in pairs]

    def sentence(self) -> str:
        """The outcome in one sentence."""
        s = self.summary
        dice = f", mean Dice {s.mean_dice:.2f}" if s.mean_dice is not None else ""
        return f"{len(s.matches)} matched{dice}, {len(s.missed)} missed, {len(s.false_positives)} only in the result."

    def _matched(self, i: int, j: int, dice: float) -> Outcome:
        result, reference = self.result, self.reference
        mine, true = _name(result, i), _name(reference, j)
        voxels = result.masks[i].n_voxels - reference.masks[j].n_voxels
        unit = "mm" if result.grid.spacing_known else "px"
        surface = surface_agreement(result, i, reference, j)
        return Outcome(
            class_name=mine if mine == true else f"{mine} = {true}",
            outcome=MATCHED,
            mask=result.masks[i],
            dice=dice,
            volume_difference=in_volume_unit(voxels * result.grid.voxel_volume_unit3, unit),
            hd95=None if surface is None else surface.hd95,
        )


def suggested_classes(result: Instances, reference: Instances) -> dict[str, str]:
    """Which class of a reference each class of a result is.

    By name, however it is spelt. Classes of the reference whose names say nothing ("label 1") are given to the class of
    the result that shares most voxels with them.
    """
    match = match_class_names(result.class_names, reference.class_names)
    same = {own: next(o for o in match.second if match.second[o] == name) for own, name in match.first.items()}
    nameless = [name for name in match.only_second if _NUMBERED.fullmatch(name)]
    shared = shared_voxel_counts(result, reference)
    together = {
        (own, theirs): int(shared[np.ix_(_members(result, own), _members(reference, theirs))].sum())
        for own in match.only_first
        for theirs in nameless
    }
    for (own, theirs), voxels in sorted(together.items(), key=lambda pair: -pair[1]):
        if voxels and own not in same and theirs not in same.values():
            same[own] = theirs
    return same


def compare(
    result: Instances,
    reference: Instances,
    *,
    iou_threshold: float = 0.5,
    classes: Mapping[str, str] | None = None,
) -> Comparison:
    """Match a result with a reference.

    Args:
        result: Instances to evaluate.
        reference: Instances to compare with.
        iou_threshold: Mask IoU from which two instances match, in (0, 1].
        classes: The reference's class of each of the result's classes, from :func:`suggested_classes` or by hand; a
            class that is left out matches none. ``None`` compares shapes alone: an RTSTRUCT's "GTV" may be a tumour.

    Raises:
        ValueError: if the two are not on the same grid, or are one and the same.
    """
    if result is reference:
        raise ValueError("A result cannot be compared with itself. Choose another reference.")
    if result.grid.shape != reference.grid.shape or not np.allclose(
        result.grid.affine_vox_to_ras, reference.grid.affine_vox_to_ras, atol=1e-3
    ):
        raise ValueError("The two do not lie on the same scan: their grids differ.")
    if classes is None:
        pair = _of_one_class(result), _of_one_class(reference)
    else:
        pair = _under_names_of(reference, result, classes), reference
    return Comparison(result, reference, match_case(*pair, iou_threshold=iou_threshold))


def _under_names_of(reference: Instances, result: Instances, classes: Mapping[str, str]) -> Instances:
    """The result's instances under the reference's class names; a class without one gets a name that matches none."""
    own = [classes.get(name) or f"{name} (only in the result)" for name in result.class_names]
    names = tuple(dict.fromkeys((*reference.class_names, *own)))
    lookup = np.array([names.index(name) for name in own], np.int64)
    return replace(result, class_names=names, labels=lookup[result.labels] if len(result) else result.labels)


def _members(instances: Instances, name: str) -> np.ndarray:
    return np.flatnonzero(instances.labels == instances.class_names.index(name))


def _name(instances: Instances, i: int) -> str:
    return instances.class_names[instances.labels[i]]


def _of_one_class(instances: Instances) -> Instances:
    return replace(instances, class_names=("object",), labels=np.zeros(len(instances), np.int64))

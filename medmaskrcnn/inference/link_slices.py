"""Links the objects of single slices to objects of the volume (2D and 2.5D models).

Slices are processed in order. Each object of a slice is appended to the open chain of its class whose last mask it
overlaps most; pairs are matched greedily by descending IoU, each object and each chain once, so that two touching
tumours stay separate. A chain is closed when the object is missing from more than ``gap`` consecutive slices; a missed
slice is filled with the intersection of the masks before and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmaskrcnn.inference.detection import Detection, join_detections


@dataclass
class _Chain:
    slices: list[Detection]  # in slice order, see _slice

    @property
    def last(self) -> Detection:
        return self.slices[-1]


def link_slices(slices: Sequence[Sequence[Detection]], *, link_iou: float, gap: int) -> list[Detection]:
    """Link the objects of single slices.

    Args:
        slices: For each slice of the turned scan its objects, as
            :func:`medmaskrcnn.inference.detection.paste_detections` returns them for one slice (they start at slice 0).
        link_iou: Minimum intersection over union of the masks.
        gap: Number of consecutive slices from which an object may be missing.

    Returns:
        Objects by descending score; what was removed is linked by itself. The score of an object is the mean over the
        surer half of its area (:func:`mean_of_surer_half`).
    """
    closed: list[_Chain] = []
    chains: list[_Chain] = []
    for index, objects in enumerate(slices):
        here = [_at(found, index) for found in objects if not found.mask.is_empty]
        still_open = [c for c in chains if index - _slice(c.last) <= gap + 1]
        closed += [c for c in chains if index - _slice(c.last) > gap + 1]
        chains = still_open
        pairs = _pairs(chains, here, link_iou)
        for chain, found in pairs:
            chains[chain].slices.append(here[found])
        linked = {found for _, found in pairs}
        chains += [_Chain([found]) for j, found in enumerate(here) if j not in linked]
    joined = [_join(chain) for chain in closed + chains]
    return sorted(joined, key=lambda f: (-f.score, f.mask.start))


def mean_of_surer_half(scores: Sequence[float], areas: Sequence[int]) -> float:
    """Mean score, weighted by area, over the slices with the highest scores that together have half of the area.

    Half of the area, since the end slices of a good object may be uncertain, and an object must not rank below a
    fragment of it; not the best slice alone, since of many slices without the object one may look like it.

    Args:
        scores: Of the object in each slice, 0..1.
        areas: Voxels of each slice, at least 1.

    Example:
        >>> round(mean_of_surer_half([0.4, 0.9, 0.8, 0.4], [10, 20, 20, 10]), 3)  # 20 of 0.9 and 10 of 0.8
        0.867
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ends = np.cumsum(np.asarray(areas, np.float64)[order])
    begins = np.concatenate([[0], ends[:-1]])
    counted = np.clip(ends[-1] / 2 - begins, 0, ends - begins)
    return float(np.average(np.asarray(scores)[order], weights=counted))


def _slice(found: Detection) -> int:
    return found.mask.start[0]


def _at(found: Detection, index: int) -> Detection:
    box = found.box.copy()
    box[0], box[3] = index, index + 1
    return replace(found, box=box, mask=found.mask.shifted((index - _slice(found), 0, 0)))


def _pairs(chains: list[_Chain], here: list[Detection], link_iou: float) -> list[tuple[int, int]]:
    scored = []
    below = [_at(found, 0).mask for found in here]
    for i, chain in enumerate(chains):
        above = _at(chain.last, 0).mask
        for j, found in enumerate(here):
            alike = (found.label, found.removed) == (chain.last.label, chain.last.removed)
            shared = above.overlap(below[j]) if alike else 0
            if shared and (iou := shared / (above.n_voxels + below[j].n_voxels - shared)) >= link_iou:
                scored.append((iou, i, j))
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(scored, key=lambda s: (-s[0], s[1], s[2])):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def _join(chain: _Chain) -> Detection:
    if len(chain.slices) == 1:
        return chain.last
    areas = [found.mask.n_voxels for found in chain.slices]
    score = mean_of_surer_half([found.score for found in chain.slices], areas)
    pieces = list(chain.slices)
    for upper, lower in zip(chain.slices, chain.slices[1:], strict=False):
        pieces += _fill(upper, lower)
    return join_detections(pieces, score=score)


def _fill(upper: Detection, lower: Detection) -> list[Detection]:
    """Copies of the intersection of two slices' masks, one for each slice between them."""
    shared = _at(upper, 0).mask.intersection(_at(lower, 0).mask)
    between = range(_slice(upper) + 1, _slice(lower))
    return [replace(upper, mask=shared.shifted((index, 0, 0))) for index in between]

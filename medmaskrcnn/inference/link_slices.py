"""Objects found slice by slice become objects of the volume (2D and 2.5D models).

Slices are walked in order. Each object of a slice is handed to the open chain of its class whose last mask it
overlaps most; pairs are taken greedily from the best overlap down, each object and each chain once, so that two
touching tumours stay two. A chain closes when it misses more slices than ``gap``; a missed slice in between is filled
with what its two neighbours share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmaskrcnn.inference.detection import Detection, join_detections


@dataclass
class _Chain:
    slices: list[Detection]  # in slice order, see _slice

    @property
    def last(self) -> Detection:
        return self.slices[-1]


def link_slices(slices: Sequence[Sequence[Detection]], *, link_iou: float, gap: int) -> list[Detection]:
    """Link slice-wise objects.

    Args:
        slices: For each slice of the turned scan its objects, as
            :func:`medmaskrcnn.inference.detection.paste_detections` gives them for one slice (they start at slice 0).
        link_iou: Least intersection over union of the masks.
        gap: Slices in between that may lack the object.

    Returns:
        Objects by falling score; an object is as certain as the slice that shows it best, so that one which goes
        on through many slices to an uncertain end does not lose to a scrap of it (re-scoring by the maximum in W. Han
        et al., Seq-NMS for Video Object Detection, 2016).
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
            shared = above.overlap(below[j]) if found.label == chain.last.label else 0
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
    score = max(f.score for f in chain.slices)
    pieces = list(chain.slices)
    for upper, lower in zip(chain.slices, chain.slices[1:], strict=False):
        pieces += _fill(upper, lower)
    return join_detections(pieces, score=score)


def _fill(upper: Detection, lower: Detection) -> list[Detection]:
    """Copies of what two slices share, for the slices between them."""
    shared = _at(upper, 0).mask.intersection(_at(lower, 0).mask)
    between = range(_slice(upper) + 1, _slice(lower))
    return [replace(upper, mask=shared.shifted((index, 0, 0))) for index in between]

"""Objects found slice by slice become objects of the volume (2D and 2.5D models).

Slices are walked in order. Each object of a slice is handed to the open chain of its class whose last mask it
overlaps most; pairs are taken greedily from the best overlap down, each object and each chain once, so that two
touching tumours stay two. A chain closes when it misses more slices than ``gap``; a missed slice in between is filled
with what its two neighbours share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmaskrcnn.inference.instance_masks import Found, overlap_voxels, union


@dataclass
class _Chain:
    slices: list[Found]  # in slice order; ``start[0]`` is the slice

    @property
    def last(self) -> Found:
        return self.slices[-1]


def link_slices(slices: Sequence[Sequence[Found]], *, link_iou: float, gap: int) -> list[Found]:
    """Link slice-wise objects.

    Args:
        slices: For each slice of the turned scan its objects, as :func:`medmaskrcnn.inference.instance_masks.paste`
            gives them for one slice (they start at slice 0).
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
        here = [_at(found, index) for found in objects if found.mask.size]
        still_open = [c for c in chains if index - c.last.start[0] <= gap + 1]
        closed += [c for c in chains if index - c.last.start[0] > gap + 1]
        chains = still_open
        pairs = _pairs(chains, here, link_iou)
        for chain, found in pairs:
            chains[chain].slices.append(here[found])
        linked = {found for _, found in pairs}
        chains += [_Chain([found]) for j, found in enumerate(here) if j not in linked]
    joined = [_join(chain) for chain in closed + chains]
    return sorted(joined, key=lambda f: (-f.score, f.start))


def _at(found: Found, index: int) -> Found:
    box = found.box.copy()
    box[0], box[3] = index, index + 1
    return replace(found, box=box, start=(index, found.start[1], found.start[2]))


def _pairs(chains: list[_Chain], here: list[Found], link_iou: float) -> list[tuple[int, int]]:
    scored = []
    for i, chain in enumerate(chains):
        above = replace(chain.last, start=(0, *chain.last.start[1:]))
        for j, found in enumerate(here):
            if found.label == chain.last.label:
                below = replace(found, start=(0, *found.start[1:]))
                shared = overlap_voxels(above, below)
                iou = shared / (np.count_nonzero(above.mask) + np.count_nonzero(below.mask) - shared)
                if shared and iou >= link_iou:
                    scored.append((iou, i, j))
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(scored, key=lambda s: (-s[0], s[1], s[2])):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def _join(chain: _Chain) -> Found:
    if len(chain.slices) == 1:
        return chain.last
    score = max(f.score for f in chain.slices)
    pieces = list(chain.slices)
    for upper, lower in zip(chain.slices, chain.slices[1:], strict=False):
        pieces += _fill(upper, lower)
    return union(pieces, score=score)


def _fill(upper: Found, lower: Found) -> list[Found]:
    """Copies of what two slices share, for the slices between them."""
    low = [max(a, b) for a, b in zip(upper.start[1:], lower.start[1:], strict=True)]
    high = [
        min(a + n, b + m)
        for a, n, b, m in zip(upper.start[1:], upper.mask.shape[1:], lower.start[1:], lower.mask.shape[1:], strict=True)
    ]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return []
    window_u = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, upper.start[1:], strict=True))
    window_l = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, lower.start[1:], strict=True))
    shared = upper.mask[:, *window_u] & lower.mask[:, *window_l]
    between = range(upper.start[0] + 1, lower.start[0])
    return [replace(upper, start=(index, low[0], low[1]), mask=shared, box=upper.box) for index in between]

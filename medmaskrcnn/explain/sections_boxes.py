"""Sections on boxes: anchors, proposals, pyramid levels, refined boxes with classes."""

from __future__ import annotations

from html import escape

import torch
from torch import Tensor

from medmaskrcnn.explain.canvas import Canvas
from medmaskrcnn.explain.focus import origin_of
from medmaskrcnn.explain.page import Section, bar, figure, figures, key, more, paragraph, table
from medmaskrcnn.explain.pictures import data_uri, heat, plane_of
from medmaskrcnn.explain.scene import GONE, LEVEL_COLOURS, PROPOSAL, Scene
from medmaskrcnn.explain.sections_maps import chips
from medmaskrcnn.explain.shapes import Stage

_PROPOSALS_DRAWN = 60
_DETECTIONS_LISTED = 8
_REFINED_DRAWN = 12


def rpn_section(scene: Scene, stage: Stage) -> Section:
    """Anchors, objectness of every level, the best proposals."""
    walk, settings = scene.walk, scene.settings.model
    anchors = figure(_anchors(scene).svg(), "The anchors of one cell of each level: " + _level_key(5))
    maps = [_objectness(scene, level) for level in range(len(walk.pyramid))]
    per_cell = len(settings.anchors.ratios)
    rows = [
        [
            f"P{number}",
            f"{len(walk.anchors[i]):,}",
            f"{int((walk.candidates[2] == i).sum()):,}",
            f"{int((walk.candidates[2][scene.proposal_origin] == i).sum()):,}",
        ]
        for i, number in enumerate(range(2, 2 + len(walk.pyramid)))
    ]
    text = paragraph(
        f"At every cell of every level stand {per_cell} reference boxes, the <em>anchors</em>. For each the region "
        "proposal network answers two questions: is there an object (objectness, 0 to 1), and how should the box "
        f"move to fit it? The best {settings.rpn.pre_nms_top_n:,} of each level are moved, and of boxes that overlap "
        f"with an IoU above {settings.rpn.nms_iou:g} only the best stays. At most {settings.rpn.post_nms_top_n:,} go "
        "on as <em>proposals</em>."
    )
    body = text + figures(anchors, *maps, figure(*_proposals(scene)), each="16rem", pairs=True)
    body += table(["Level", "Anchors", "Moved", "Proposals"], rows, numbers=("Anchors", "Moved", "Proposals"))
    return Section("rpn", "Where might something be?", body, chips(stage))


def levels_section(scene: Scene, stage: Stage) -> Section:
    """Which level each proposal is read from."""
    roi, walk = scene.settings.model.roi, scene.walk
    drawing = scene.canvas("Proposals in the colour of their level")
    for i in reversed(scene.seen(walk.proposals)[:_PROPOSALS_DRAWN]):
        drawing.box(walk.proposals[i].tolist(), LEVEL_COLOURS[int(scene.focus.levels[i])], width=1.5)
    counts = scene.focus.levels.bincount(minlength=len(walk.pyramid) - 1).tolist()
    rows = []
    for i, count in enumerate(counts):
        low = roi.canonical_size * 2.0 ** (i + 2 - roi.canonical_level)
        size = (
            f"under {2 * low:g}"
            if i == 0
            else f"{low:g} to {2 * low:g}"
            if i < len(counts) - 1
            else f"{low:g} and more"
        )
        rows.append([key(LEVEL_COLOURS[i], f"P{i + 2}"), size, f"{count:,}"])
    text = paragraph(
        f"A small box is read from a fine map, a large one from a coarse map: level = {roi.canonical_level} + "
        f"log2(size / {roi.canonical_size:g}), rounded down, where size is the square root of the box's area in the "
        "plane (FPN, equation 1). P6 is for proposing alone."
    )
    caption = f"The best {_PROPOSALS_DRAWN} proposals at most: " + _level_key(len(counts))
    body = text + figures(figure(drawing.svg(), caption))
    body += table(["Level", "Size in voxels", "Proposals"], rows, numbers=("Proposals",))
    return Section("levels", "Which level does each box go to?", body, chips(stage))


def refine_section(scene: Scene) -> Section:
    """From proposals to refined boxes."""
    walk = scene.walk
    drawing = scene.canvas("Proposals, and the boxes that they became")
    for i in scene.seen(walk.detections.boxes)[:_REFINED_DRAWN]:
        box, stroke = walk.detections.boxes[i], scene.class_colour(int(walk.detections.labels[i]))
        proposal = walk.proposals[origin_of(walk, i)]
        drawing.box(proposal.tolist(), PROPOSAL, width=1.2, dashed=True).box(box.tolist(), stroke)
        drawing.line(_centre(proposal), _centre(box), PROPOSAL, width=1.5, arrow=True)
    text = paragraph(
        "The box head looks at each region and corrects its box once more, separately for each class: shift of the "
        "centre in shares of the box, and growth as a logarithm. Dashed is the proposal, solid the refined box; the "
        "arrow goes from centre to centre."
    )
    body = text + figures(
        figure(drawing.svg(), key(PROPOSAL, "proposal") + ", solid in the colour of the class: refined")
    )
    return Section("refine", "The boxes are corrected", body + _followed_deltas(scene))


def class_section(scene: Scene, stage: Stage) -> Section:
    """Scores of the followed region, and the best detections."""
    walk, focus = scene.walk, scene.focus
    if focus.proposal is None:
        return Section("classes", "What is it?", paragraph("There was no proposal to score."), chips(stage))
    scores = walk.logits[focus.proposal].softmax(dim=0).tolist()
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:12]
    bars = "".join(
        bar("background", scores[0], GONE)
        if i == 0
        else bar(scene.class_name(i - 1), scores[i], scene.class_colour(i - 1))
        for i in order
    )
    rows = []
    for i in range(min(_DETECTIONS_LISTED, len(walk.detections.boxes))):
        probabilities = walk.logits[origin_of(walk, i)].softmax(dim=0)
        label = int(walk.detections.labels[i])
        probabilities[label + 1] = -1
        second = int(probabilities.argmax())
        other = "background" if second == 0 else scene.class_name(second - 1)
        rows.append(
            [
                key(scene.class_colour(label), escape(scene.class_name(label))),
                f"{float(walk.detections.scores[i]):.2f}",
                f"{escape(other)} {float(probabilities[second]):.2f}",
            ]
        )
    text = paragraph(
        "For each region the box head gives one score to every class and one to <em>background</em>; together they "
        "are 1. These are those of the region that is followed through this page."
    )
    listed = table(["Detection", "Score", "Next best"], rows, numbers=("Score",)) if rows else ""
    return Section("classes", "What is it?", text + bars + listed + _scores_are(), chips(stage))


def _scores_are() -> str:
    return more(
        "Is a score of 0.9 a probability of 90 %?",
        "Not by itself. It orders detections well; whether nine of ten such detections are right has to be measured on "
        "scans like yours.",
    )


def _anchors(scene: Scene) -> Canvas:
    walk, focus = scene.walk, scene.focus
    drawing = scene.canvas("Anchors of one cell of each level")
    if focus.detection is not None:
        box = walk.detections.boxes[focus.detection]
        centre = (box[: walk.dims] + box[walk.dims :]) / 2
    else:
        centre = torch.tensor([n / 2 for n in walk.shape])
    per_cell = len(scene.settings.model.anchors.ratios)
    for level, anchors in reversed(list(enumerate(walk.anchors))):
        centres = (anchors[::per_cell, : walk.dims] + anchors[::per_cell, walk.dims :]) / 2
        cell = int(((centres - centre) ** 2).sum(dim=1).argmin())
        for box in anchors[cell * per_cell : (cell + 1) * per_cell]:
            drawing.box(box.tolist(), LEVEL_COLOURS[level], width=1.5)
    return drawing


def _objectness(scene: Scene, level: int) -> str:
    walk, stride = scene.walk, scene.walk.strides[level]
    per_cell = len(scene.settings.model.anchors.ratios)
    best = walk.objectness[level].reshape(-1, per_cell).max(dim=1).values.sigmoid()
    cells = plane_of(best.reshape(1, *walk.pyramid[level].shape[1:]), scene.focus.plane, stride)[0]
    drawing = scene.canvas(f"Objectness of P{level + 2}").picture(
        data_uri(heat(cells, low=0, high=1)),
        (0, 0, cells.shape[0] * stride[-2], cells.shape[1] * stride[-1]),
        opacity=0.75,
    )
    return figure(drawing.svg(), f"Objectness on P{level + 2}, best anchor of each cell: up to {cells.max():.2f}.")


def _proposals(scene: Scene) -> tuple[str, str]:
    walk = scene.walk
    drawing = scene.canvas("The best proposals")
    shown = scene.seen(walk.proposals)[:_PROPOSALS_DRAWN]
    for i in reversed(shown):
        drawing.box(walk.proposals[i].tolist(), PROPOSAL, width=1.5, opacity=0.25 + 0.75 * float(scene.objectness[i]))
    if not shown:
        return drawing.svg(), "No proposal crosses this slice."
    low, high = (float(f(scene.objectness[shown])) for f in (torch.min, torch.max))
    return (
        drawing.svg(),
        f"The {len(shown)} best of {len(walk.proposals):,} proposals; objectness {low:.2f} to {high:.2f}.",
    )


def _followed_deltas(scene: Scene) -> str:
    """The correction of the followed box in words."""
    walk, focus = scene.walk, scene.focus
    if focus.detection is None or focus.proposal is None:
        return ""
    before, after = walk.proposals[focus.proposal], walk.detections.boxes[focus.detection]
    dims, rows = walk.dims, []
    for axis, name in enumerate(("slices", "rows", "columns")[3 - dims :]):
        low, high = (float(before[axis]), float(before[dims + axis])), (float(after[axis]), float(after[dims + axis]))
        shift, growth = sum(high) / 2 - sum(low) / 2, (high[1] - high[0]) / max(low[1] - low[0], 1e-6)
        rows.append(
            [
                name,
                scene.length(low[1] - low[0], 3 - dims + axis),
                scene.length(shift, 3 - dims + axis),
                f"x {growth:.2f}",
            ]
        )
    return paragraph("The box that is followed:") + table(["Axis", "Proposal's edge", "Shift", "Growth"], rows)


def _centre(box: Tensor) -> tuple[float, float]:
    dims = len(box) // 2
    row, column = ((box[:dims] + box[dims:]) / 2)[-2:].tolist()
    return row, column


def _level_key(count: int) -> str:
    return ", ".join(key(LEVEL_COLOURS[i], f"P{i + 2}") for i in range(count))

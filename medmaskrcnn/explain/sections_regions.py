"""Sections on regions: RoIAlign compared with RoIPool, and the resulting masks."""

from __future__ import annotations

from html import escape

import torch
from torch import Tensor

from medmaskrcnn.explain.canvas import Canvas
from medmaskrcnn.explain.outline import outline_path
from medmaskrcnn.explain.page import Section, figure, figures, key, more, paragraph
from medmaskrcnn.explain.pictures import data_uri, heat, plane_of, strength
from medmaskrcnn.explain.scene import PROPOSAL, Scene
from medmaskrcnn.explain.sections_maps import chips
from medmaskrcnn.explain.shapes import Stage
from medmaskrcnn.inference.detection import paste_detections
from medmaskrcnn_kernels import roi_pool
from medmaskrcnn_kernels.roi_pool import bin_edges
from medmaskrcnn_kernels.separable import axis_grid

_POOLED = "#ff6e6e"
_ALIGNED = "#4fc3f7"
_CLASSES_SHOWN = 12


def align_section(scene: Scene, stage: Stage) -> Section:
    """The followed proposal on its map: RoIAlign's samples, RoIPool's rounding, and what each reads."""
    walk, focus = scene.walk, scene.focus
    if focus.proposal is None:
        return Section("align", "What is read of a region", paragraph("There was no proposal to read."), chips(stage))
    level = int(focus.levels[focus.proposal])
    pooled = roi_pool(
        walk.pyramid[level][None],
        walk.proposals[focus.proposal][None],
        torch.zeros(1, dtype=torch.int64),
        output_size=walk.regions.shape[2:],
        spatial_scale=[1 / s for s in walk.strides[level]],
    )[0]
    read = _middle_slice(walk.regions[focus.proposal])
    rounded = _middle_slice(pooled)
    low, high = (float(f(torch.stack([read, rounded]))) for f in (torch.min, torch.max))
    bins = " x ".join(str(n) for n in walk.regions.shape[2:])
    parts = (
        figure(_aligned(scene, level).svg(), f"RoIAlign on P{level + 2}: the box as it is, {bins} bins, "
               "a dot wherever the map is interpolated."),
        figure(_rounded(scene, level).svg(), f"RoIPool would have rounded to whole cells: {key(_POOLED, 'rounded')}, "
               f"{key(PROPOSAL, 'the box')}. {_moved(scene, level)}"),
        figure(_small(read, low, high, "What RoIAlign read"), "What RoIAlign read: this goes to the box head."),
        figure(_small(rounded, low, high, "What RoIPool would have read"), "What RoIPool would have read."),
    )  # fmt: skip
    text = paragraph(
        "Boxes come in all sizes, the heads want one. The box is cut into bins, and each bin becomes one value a "
        "channel. RoIPool (Fast R-CNN) rounds the box and its bins to whole cells of the map and takes the largest "
        "value. RoIAlign (Mask R-CNN) rounds nothing: it interpolates between cells at regular points and takes "
        "their mean. For a class that hardly matters; for the outline of a small tumour it does."
    )
    return Section("align", "What is read of a region", text + figures(*parts, each="26rem"), chips(stage))


def mask_section(scene: Scene, stage: Stage) -> Section:
    """Mask probabilities of every class for the followed detection."""
    walk, focus = scene.walk, scene.focus
    if walk.mask_logits is None:
        return Section(
            "masks", "Which voxels?", paragraph("This model has no mask head: its boxes are the result."), chips(stage)
        )
    if focus.detection is None:
        return Section(
            "masks", "Which voxels?", paragraph("Nothing was found here, so no mask was made."), chips(stage)
        )
    chosen = int(walk.detections.labels[focus.detection])
    probabilities = walk.mask_logits[focus.detection].sigmoid()
    others = [k for k in range(len(probabilities)) if k != chosen][: _CLASSES_SHOWN - 1]
    parts = []
    for label in (chosen, *others):
        plane = probabilities[label]
        plane = plane[plane.shape[0] // 2] if plane.ndim == 3 else plane
        name = escape(scene.class_name(label))
        caption = f"<strong>{name}</strong>: the class that was chosen" if label == chosen else name
        parts.append(figure(_small(plane, 0.0, 1.0, f"Mask of {name}"), key(scene.class_colour(label), caption)))
    side = " x ".join(str(n) for n in walk.mask_logits.shape[2:])
    text = paragraph(
        "The region of the <em>refined</em> box is read once more, finer, and the mask head gives a probability at "
        f"{side} points, one mask for each class. The classes do not compete: the class comes from the box head, and "
        "only the mask of that class is used. Dark is 0, bright is "
        f"1{'; the middle slice is shown' if walk.dims == 3 else ''}."
    )
    hidden = len(probabilities) - len(parts)
    tail = paragraph(f"{hidden} further classes are not shown.") if hidden else ""
    return Section("masks", "Which voxels?", text + figures(*parts, each="8.5rem", pairs=True) + tail, chips(stage))


def pasted_section(scene: Scene) -> Section:
    """Masks at full size, and the outlines that the result has."""
    walk, detection = scene.walk, scene.settings.model.detection
    drawing = scene.canvas("Outlines of what was found")
    threshold = scene.settings.inference.score
    named = set()
    found = paste_detections(
        walk.detections.boxes,
        walk.detections.labels,
        walk.detections.scores,
        walk.detections.mask_probabilities,
        shape=walk.shape,
        threshold=detection.mask_threshold,
        mask_boxes=walk.detections.mask_boxes,
    )
    for item in found:
        start, crop = item.mask.start, item.mask.array
        row = scene.focus.plane - start[0]
        if item.score < threshold or not 0 <= row < len(crop):
            continue
        stroke = scene.class_colour(item.label)
        drawing.box(item.box.tolist(), stroke, width=1, dashed=True)
        drawing.outline(outline_path(crop[row], start[1], start[2]), stroke)
        named.add(item.label)
    legend = ", ".join(key(scene.class_colour(label), escape(scene.class_name(label))) for label in sorted(named))
    text = paragraph(
        f"Each mask is stretched over its box and cut where the probability reaches {detection.mask_threshold:g}. In "
        "the result this is done in the scan's own voxels, so that the outline is as fine as the scan allows; here "
        "it is drawn in the network's voxels. Masks may overlap: a tumour lies inside its organ."
    )
    caption = legend or f"Nothing with a score of {threshold:g} or more crosses this slice."
    return Section(
        "pasted", "Back onto the image", text + figures(figure(drawing.svg(), caption), each="26rem") + _sides()
    )


def _sides() -> str:
    return more(
        "Why does an outline look angular?",
        "Voxels are square, and the outline follows them. In the scan's own grid they are smaller than here.",
    )


def _aligned(scene: Scene, level: int) -> Canvas:
    walk, roi = scene.walk, scene.settings.model.roi
    box, stride = walk.proposals[scene.focus.proposal or 0], walk.strides[level]
    drawing = _over_map(scene, level)
    edges, samples = [], []
    for axis in (-2, -1):
        low, high = float(box[walk.dims + axis]), float(box[axis])
        edges.append([low + (high - low) * i / roi.box_size for i in range(roi.box_size + 1)])
        grid = axis_grid(
            box[walk.dims + axis, None],
            box[axis, None],
            torch.tensor([1 / stride[axis]]),
            torch.tensor([walk.pyramid[level].shape[axis]]),
            bins=roi.box_size,
            sampling_ratio=roi.sampling_ratio,
            aligned=roi.aligned,
        )
        bin_number, sample = torch.arange(roi.box_size)[:, None], torch.arange(int(grid.samples.max()))
        samples.append(((grid.position(bin_number, sample) + 0.5) * stride[axis]).flatten().tolist())
    drawing.grid(edges[0], edges[1], PROPOSAL, width=1.2)
    radius = 0.09 * min(edges[0][1] - edges[0][0], edges[1][1] - edges[1][0])
    return drawing.dots(samples[0], samples[1], _ALIGNED, radius)


def _rounded(scene: Scene, level: int) -> Canvas:
    walk, bins = scene.walk, scene.settings.model.roi.box_size
    box, stride = walk.proposals[scene.focus.proposal or 0], walk.strides[level]
    drawing = _over_map(scene, level)
    lines = []
    for axis in (-2, -1):
        low, high = float(box[walk.dims + axis]), float(box[axis])
        edges = bin_edges(low / stride[axis], high / stride[axis], bins, walk.pyramid[level].shape[axis])
        lines.append([stride[axis] * cell for cell in (*(begin for begin, _ in edges), edges[-1][1])])
    return drawing.grid(lines[0], lines[1], _POOLED, width=1.5).box(box.tolist(), PROPOSAL, width=1.5)


def _moved(scene: Scene, level: int) -> str:
    """Largest displacement of the box by rounding."""
    walk, bins = scene.walk, scene.settings.model.roi.box_size
    box, stride = walk.proposals[scene.focus.proposal or 0], walk.strides[level]
    worst, where = 0.0, 0
    for axis in range(walk.dims):
        low, high = float(box[axis]), float(box[walk.dims + axis])
        edges = bin_edges(low / stride[axis], high / stride[axis], bins, walk.pyramid[level].shape[1 + axis])
        off = max(abs(edges[0][0] * stride[axis] - low), abs(edges[-1][1] * stride[axis] - high))
        if off > worst:
            worst, where = off, axis
    return f"An edge moves by up to {scene.length(worst, 3 - walk.dims + where)}."


def _over_map(scene: Scene, level: int) -> Canvas:
    walk, stride = scene.walk, scene.walk.strides[level]
    box = walk.proposals[scene.focus.proposal or 0]
    plane = 0 if walk.dims == 2 else int((float(box[0]) + float(box[3])) / 2)
    cells = strength(plane_of(walk.pyramid[level], plane, stride))
    drawing = scene.canvas(f"The region on P{level + 2}", around=box)
    return drawing.picture(
        data_uri(heat(cells)), (0, 0, cells.shape[0] * stride[-2], cells.shape[1] * stride[-1]), opacity=0.85
    )


def _middle_slice(region: Tensor) -> Tensor:
    """Strength ``(bins, bins)`` of a region ``(C, *bins)``; of a 3D one its middle slice."""
    plane = region[:, region.shape[1] // 2] if region.ndim == 4 else region
    return plane.square().mean(dim=0).sqrt()


def _small(plane: Tensor, low: float, high: float, label: str) -> str:
    rows, columns = plane.shape
    pixels = data_uri(heat(plane.numpy(), low=low, high=high))
    drawing = Canvas((0, 0, rows, columns), label).picture(pixels, (0, 0, rows, columns))
    return drawing.svg()

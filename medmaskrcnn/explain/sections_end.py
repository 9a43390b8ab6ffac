"""Last sections of the page: removed boxes, the steps after this window, and shapes given in articles."""

from __future__ import annotations

from html import escape

from medmaskrcnn.explain.page import Section, figure, figures, key, paragraph, table
from medmaskrcnn.explain.scene import GONE, Scene
from medmaskrcnn.explain.sections_maps import chips
from medmaskrcnn.explain.shapes import Difference, Stage

_GONE_DRAWN = 200


def removed_section(scene: Scene, stage: Stage) -> Section:
    """Number of boxes left after each rule, and the positions of those removed."""
    walk, model, inference = scene.walk, scene.settings.model, scene.settings.inference
    pairs = len(walk.logits) * len(model.class_names)
    reported = int((walk.detections.scores >= inference.score).sum())
    rpn, detection = model.rpn, model.detection
    rows = [
        ["Anchors", f"{sum(map(len, walk.anchors)):,}", "every cell of every level"],
        ["Moved", f"{len(walk.candidates[0]):,}", f"the best {rpn.pre_nms_top_n:,} of each level"],
        ["Proposals", f"{len(walk.proposals):,}",
         f"of boxes with an IoU above {rpn.nms_iou:g} the best; the best {rpn.post_nms_top_n:,} of those"],
        ["Scored", f"{pairs:,}", f"each proposal as each of {len(model.class_names)} classes"],
        ["Certain enough", f"{len(walk.certain.boxes):,}", f"score above {detection.score_thresh:g}"],
        ["Candidates", f"{len(walk.detections.boxes):,}",
         f"of boxes of one class with an IoU above {detection.nms_iou:g} the best; "
         f"at most {detection.detections_per_img}"],
        ["Shown by default", f"{reported:,}", f"score of {inference.score:g} or more; the others stay in the result"],
    ]  # fmt: skip
    drawing = scene.canvas("What was removed, and what stays")
    for i in scene.seen(walk.certain.boxes)[:_GONE_DRAWN]:
        drawing.box(walk.certain.boxes[i].tolist(), GONE, width=0.8, opacity=0.6)
    for i in reversed(scene.seen(walk.detections.boxes)):
        sure = float(walk.detections.scores[i]) >= inference.score
        drawing.box(walk.detections.boxes[i].tolist(), scene.class_colour(int(walk.detections.labels[i])),
                    width=2 if sure else 1.2, dashed=not sure)  # fmt: skip
    text = paragraph(
        "Many regions find the same object. <em>Non-maximum suppression</em> keeps the best of each heap and drops "
        "what overlaps it, class by class, so that a tumour does not suppress its liver."
    )
    caption = f"{key(GONE, 'removed')}; solid: shown by default; dashed: kept below the threshold."
    body = text + figures(figure(drawing.svg(), caption), each="26rem")
    body += table(["", "Boxes", "What stays"], rows, numbers=("Boxes",))
    return Section("removed", "What is removed", body + _afterwards(scene), chips(stage))


def _afterwards(scene: Scene) -> str:
    inference = scene.settings.inference
    once = []
    if inference.max_containment is not None:
        once = [
            f"An object is removed if better ones of its class hold more than {inference.max_containment:.0%} of it."
        ]
    if scene.settings.model.spatial_dims == 3:
        joined = (
            "Afterwards the tiles' detections are joined: two of one class are one object where their masks agree "
            f"with an IoU of {inference.merge_iou:g} or more in what both tiles saw."
        )
        sentences = [joined, *once]
    else:
        linked = (
            "Then slices are linked: masks of one class on neighbouring slices are one object from an IoU of "
            f"{inference.link_iou:g} on, and at most {inference.link_gap} slice between them may lack it; "
            "its score is the mean over the surer half of its area."
        )
        sentences = [*once, linked]
    if inference.one_per_scan_classes:
        single = escape(", ".join(inference.one_per_scan_classes))
        sentences.append(f"Of {single} only the most certain is kept, since a body has one of each.")
    return paragraph(" ".join(sentences))


def articles_section(differences: tuple[Difference, ...]) -> Section:
    """The shapes given in articles compared with those of this forward pass."""
    rows = [
        [f"<strong>{escape(d.what)}</strong>", escape(d.articles), escape(d.here), escape(d.why)] for d in differences
    ]
    text = paragraph(
        "Articles mostly explain the form with one map (C4) on an image of 800 x 800. This network has a feature "
        "pyramid. What they say, what happened here, and why it differs:"
    )
    body = text + table(["", "Articles", "Here", "Why"], rows, fold=True)
    return Section("articles", "As articles teach it", body + _sources())


def _sources() -> str:
    return paragraph(
        '<span class="faint">Sources: He et al., Mask R-CNN, ICCV 2017, figure 4; Lin et al., Feature pyramid '
        "networks, CVPR 2017; Ren et al., Faster R-CNN, NeurIPS 2015; Girshick, Fast R-CNN, ICCV 2015.</span>"
    )

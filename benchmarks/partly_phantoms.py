"""What to do with unknown classes in training: six kinds of shapes, each picture labelled for one of three sets of two.

    python benchmarks/partly_phantoms.py --variants complete background negatives per_class --seeds 0 1

Of twenty pictures sixteen are labelled for discs and rings, three for squares and crosses, one for triangles and
frames: all six kinds are in every picture. The network proposes twelve regions, so that what the region proposal
network ranks low is lost. About a minute for each training on one core. Prints AP (pycocotools) on 150 pictures with
all labels, and the share of the objects of each set that the proposals hold.

- complete: every picture labelled for all kinds, the upper bound;
- background: what is unknown counts as background, everywhere;
- negatives: the box head's loss is the marginal one, the region proposal network's negatives are those of a complete
  picture, objects of unknown kinds among them;
- per_class: the library's way, objectness per class;
- shared: one objectness, whose negatives come from complete pictures alone: here there are none.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from medmaskrcnn.models import mask_rcnn
from medmaskrcnn.models.box_coder import box_iou
from medmaskrcnn.models.build import build_model
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.objective import Targets, rpn_terms
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    ModelSettings,
    RoISettings,
    RPNSettings,
)

NAMES = ("disc", "ring", "square", "cross", "triangle", "frame")
VARIANTS = ("complete", "background", "negatives", "per_class", "shared")
SIDE, OBJECTS, STEPS, BATCH, RATE = 128, 7, 700, 6, 2e-3
FIRST_TEST, TESTS = 10**6, 150


def shape(kind: str, n: int) -> np.ndarray:
    """A shape that fills ``(n, n)`` pixels."""
    y, x = np.mgrid[:n, :n] / (n - 1) * 2 - 1
    r = np.hypot(x, y)
    shapes = {
        "disc": r <= 1,
        "ring": (r <= 1) & (r > 0.6),
        "square": np.ones((n, n), bool),
        "cross": (abs(x) < 0.33) | (abs(y) < 0.33),
        "triangle": abs(x) <= (y + 1) / 2,
        "frame": np.maximum(abs(x), abs(y)) > 0.6,
    }
    return shapes[kind]


def picture(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Picture ``(1, 128, 128)``, boxes ``(N, 4)`` and kinds ``(N,)`` of its objects, which do not touch."""
    random = np.random.default_rng(seed)
    image, boxes, labels = np.zeros((SIDE, SIDE), np.float32), [], []
    for _ in range(60):
        kind, n = int(random.integers(len(NAMES))), int(random.integers(12, 34))
        y, x = random.integers(0, SIDE - n, 2).tolist()
        if len(boxes) == OBJECTS or any(y < d and b < y + n and x < e and c < x + n for b, c, d, e in boxes):
            continue
        image[y : y + n, x : x + n][shape(NAMES[kind], n)] = random.uniform(0.6, 1.4)
        boxes.append([y, x, y + n, x + n])
        labels.append(kind)
    image += random.normal(0, 0.35, image.shape)
    image += np.linspace(-0.3, 0.3, SIDE)[:, None] * random.uniform(-1, 1)
    return torch.from_numpy(image)[None], torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


def target_of(seed: int, boxes: Tensor, labels: Tensor, variant: str) -> Targets:
    """What a picture's labels say under a variant."""
    if variant == "complete":
        return Targets(boxes, labels)
    group = 0 if seed % 20 < 16 else 1 if seed % 20 < 19 else 2
    known = labels // 2 == group
    annotated = None if variant == "background" else torch.arange(len(NAMES)) // 2 == group
    return Targets(boxes[known], labels[known], annotated=annotated)


def settings(objectness: str) -> ModelSettings:
    """A small network without masks."""
    return ModelSettings(
        spatial_dims=2,
        class_names=NAMES,
        with_masks=False,
        backbone=BackboneSettings(name="light", light_channels=(16, 24, 32, 48), fpn_channels=32),
        anchors=AnchorSettings(sizes=((12, 12), (18, 18), (26, 26), (34, 34), (48, 48)), ratios=(1.0,)),
        rpn=RPNSettings(
            pre_nms_top_n=200, post_nms_top_n=12, matcher="atss", batch_per_image=64, objectness=objectness,  # type: ignore[arg-type]
        ),
        roi=RoISettings(box_size=5, box_hidden=96, canonical_size=40.0, batch_per_image=48, positive_fraction=0.4),
        detection=DetectionSettings(score_thresh=0.02, detections_per_img=40),
    )  # fmt: skip


def train(variant: str, seed: int) -> MaskRCNN:
    """Train one network."""
    torch.manual_seed(seed)
    network = build_model(settings("per_class" if variant == "per_class" else "shared")).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    random = np.random.default_rng(seed)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        seeds = random.integers(10**9, size=BATCH).tolist()
        drawn = [picture(one) for one in seeds]
        targets = [target_of(one, boxes, labels, variant) for one, (_, boxes, labels) in zip(seeds, drawn, strict=True)]
        terms = network.losses(torch.stack([image for image, _, _ in drawn]), targets, seeds=seeds)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    return network.eval()


def as_if_complete(objectness, deltas, anchors, targets, randoms, **options):  # type: ignore[no-untyped-def]
    """The region proposal network's terms with all that is unknown as background."""
    told = [replace(target, annotated=None) for target in targets]
    return rpn_terms(objectness, deltas, anchors, told, randoms, **options)


def measure(network: MaskRCNN) -> dict[str, object]:
    """AP on pictures with all labels, and the share of the objects of each set that the proposals hold."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(number: int, box: list[float], label: int) -> dict[str, object]:
        y, x, y2, x2 = box
        return {"image_id": number, "category_id": label + 1, "bbox": [x, y, x2 - x, y2 - y]}

    truth, found, proposed, there = [], [], np.zeros(3), np.zeros(3)
    for number in range(FIRST_TEST, FIRST_TEST + TESTS):
        image, boxes, labels = picture(number)
        seen: dict[str, list[Tensor]] = {}
        (detections,) = network.detect(image[None], watch=seen.__setitem__)
        hit = box_iou(boxes, seen["proposals"][0]).amax(1) >= 0.5
        for group in range(3):
            there[group] += int((labels // 2 == group).sum())
            proposed[group] += int(hit[labels // 2 == group].sum())
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            area = (box[2] - box[0]) * (box[3] - box[1])
            truth.append({**entry(number, box, label), "id": len(truth) + 1, "area": area, "iscrowd": 0})
        rows = zip(detections.boxes.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True)
        found += [{**entry(number, box, label), "score": score} for box, label, score in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(FIRST_TEST, FIRST_TEST + TESTS)],
            "annotations": truth,
            "categories": [{"id": k + 1} for k in range(len(NAMES))],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
    sets = [precision[:, :, 2 * group : 2 * group + 2].mean() for group in range(3)]
    return {
        "ap": round(float(precision.mean()), 3),
        "ap_of_sets": [round(float(value), 3) for value in sets],
        "proposed_of_sets": [round(float(value), 3) for value in proposed / there],
    }


def main() -> None:
    """Train and measure each variant with each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS[:4]), help="--variants per_class"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="--seeds 0 1 2")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        for variant in asked.variants:
            began = time.monotonic()
            mask_rcnn.rpn_terms = as_if_complete if variant == "negatives" else rpn_terms
            figures = measure(train(variant, seed))
            print(
                json.dumps({"variant": variant, "seed": seed, **figures, "s": round(time.monotonic() - began)}),
                flush=True,
            )


if __name__ == "__main__":
    main()

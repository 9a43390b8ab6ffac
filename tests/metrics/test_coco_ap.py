"""AP and AR against pycocotools, on invented and on detector-like detections, boxes and masks."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import pytest

from medmaskrcnn.metrics.average_precision import coco_table, size_table
from medmaskrcnn.metrics.judging import Judged, judge
from medmaskrcnn.metrics.pairing import Kind, pair_case
from medmaskrcnn.metrics.sizes import COCO_AREAS
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.instances import BoolArray, Instances, tight_crop

AGREEMENT = 1e-6  # both sides sum float64 in their own order
NAMES = ("round", "long", "never there")
STATS = [f"ap{part}" for part in ("", "50", "75", "_small", "_medium", "_large")]
STATS += [f"ar_{part}" for part in ("1", "10", "100", "small", "medium", "large")]


@dataclass
class Picture:
    """One picture's detections and truth, as both evaluations take them."""

    predicted: Instances
    reference: Instances
    crowd: BoolArray


def ellipse(shape: tuple[int, int], centre: np.ndarray, radii: np.ndarray) -> BoolArray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1


def planar(masks: list[BoolArray], labels: list[int], scores: list[float], rng: np.random.Generator) -> Instances:
    """Instances of one picture; boxes are the masks' own, moved a little where ``scores`` are not all one."""
    crops = [tight_crop(m[None], (0, 0, 0)) for m in masks]
    starts = np.array([start for start, _ in crops], np.int64).reshape(-1, 3)
    boxes = np.concatenate([starts, starts + np.reshape([c.shape for _, c in crops], (-1, 3))], axis=1).astype(float)
    if any(s < 1 for s in scores):
        boxes[:, [1, 2, 4, 5]] += rng.normal(0, 0.4, (len(boxes), 4)).round(1)
    return Instances(
        pixel_grid((1, *masks[0].shape) if masks else (1, 160, 200)),
        NAMES,
        np.array(labels, np.int64),
        np.array(scores, np.float32),
        boxes.astype(np.float32),
        starts,
        tuple(c for _, c in crops),
    )


def pictures(seed: int, n: int, *, like_a_detector: bool, copies: int = 2) -> list[Picture]:
    """Ellipses of every size, some in crowds; detections near them with classes and scores that fit more or less."""
    rng = np.random.default_rng(seed)
    shape, made = (160, 200), []
    for _ in range(n):
        m = int(rng.integers(0, 12))
        centres, radii = (
            rng.uniform((0, 0), shape, (m, 2)),
            rng.choice([4.0, 12, 30, 60], (m, 1)) * rng.uniform(0.6, 1.5, (m, 2)),
        )
        truth = [ellipse(shape, c, r) for c, r in zip(centres, radii, strict=True)]
        labels = rng.integers(0, 2, m)
        found, found_labels, scores = [], [], []
        for k in range(m):
            for _ in range(int(rng.integers(0, copies + 1))):
                off = 0.12 * rng.random() if like_a_detector else 0.25
                guess = ellipse(shape, centres[k] + rng.normal(0, off, 2) * radii[k], radii[k] * rng.uniform(0.8, 1.2))
                found.append(guess)
                found_labels.append(int(labels[k] if rng.random() < 0.9 else rng.integers(0, 2)))
                score = 1 - 3 * off if like_a_detector else rng.random()
                scores.append(round(float(np.clip(score + 0.2 * rng.normal(), 0.01, 0.99)), 2))  # rounded: ties
        for _ in range(int(rng.integers(0, 3))):
            found.append(ellipse(shape, rng.uniform((0, 0), shape), rng.uniform(3, 30, 2)))
            found_labels.append(int(rng.integers(0, 2)))
            scores.append(round(float(rng.uniform(0.01, 0.6)), 2))
        keep = [i for i, mask in enumerate(found) if mask.any()]
        there = [i for i, mask in enumerate(truth) if mask.any()]
        made.append(
            Picture(
                planar([found[i] for i in keep], [found_labels[i] for i in keep], [scores[i] for i in keep], rng),
                planar([truth[i] for i in there], [int(labels[i]) for i in there], [1.0] * len(there), rng),
                rng.random(len(there)) < 0.15,
            )
        )
    return made


def of_pycocotools(made: list[Picture], kind: Kind, max_detections: tuple[int, int, int]) -> np.ndarray:
    """Its twelve figures, -1 turned into NaN."""
    coco, coco_eval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    mask_utils = pytest.importorskip("pycocotools.mask")

    def entries(instances: Instances, image: int) -> list[dict[str, object]]:
        out = []
        for i, mask in enumerate(instances.masks):
            whole = np.zeros(instances.grid.shape, np.uint8)
            whole[instances.window(i)] = mask
            code = mask_utils.encode(np.asfortranarray(whole[0]))
            low, high = instances.boxes[i].astype(float)[[2, 1]], instances.boxes[i].astype(float)[[5, 4]]
            out.append(
                {
                    "image_id": image,
                    "category_id": int(instances.labels[i]) + 1,
                    "segmentation": code,
                    "bbox": [*low, *(high - low)],
                    "area": int(mask_utils.area(code)),
                }
            )
        return out

    truth, found = [], []
    for image, picture in enumerate(made):
        for entry, crowd in zip(entries(picture.reference, image), picture.crowd, strict=True):
            truth.append({**entry, "id": len(truth) + 1, "iscrowd": int(crowd)})
        for entry, score in zip(entries(picture.predicted, image), picture.predicted.scores, strict=True):
            found.append({**{k: v for k, v in entry.items() if k != "area"}, "score": float(score)})
            found[-1].pop("segmentation" if kind == "box" else "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {
            "images": [{"id": k, "height": 160, "width": 200} for k in range(len(made))],
            "annotations": truth,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        }
        known.createIndex()
        evaluation = coco_eval.COCOeval(known, known.loadRes(found), "bbox" if kind == "box" else "segm")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    return summarised(evaluation.eval["precision"], evaluation.eval["recall"])


def summarised(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """COCO's twelve figures from pycocotools' arrays ``(T, R, K, A, M)``; its own words for them fix maxDets at 100."""

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else np.nan

    aps = [precision[..., 0, 2], precision[0, ..., 0, 2], precision[5, ..., 0, 2]]
    aps += [precision[..., a, 2] for a in (1, 2, 3)]
    ars = [recall[..., 0, m] for m in range(3)] + [recall[..., a, 2] for a in (1, 2, 3)]
    return np.array([mean(values) for values in aps + ars])


def judged(made: list[Picture], kind: Kind) -> Judged:
    pairs = [pair_case(p.predicted, p.reference, class_names=NAMES, kind=kind, crowd=p.crowd) for p in made]
    return judge(pairs, NAMES, ranges=COCO_AREAS)


def ours(made: list[Picture], kind: Kind, max_detections: tuple[int, int, int]) -> np.ndarray:
    verdict, once = judged(made, kind), np.ones((1, len(made)))
    table = coco_table(verdict, once, max_detections=max_detections)
    table |= size_table(verdict, once, max_detections=max_detections[2])
    names = list(STATS)
    names[6:9] = [f"ar_{limit}" for limit in max_detections]
    return np.array([np.nan if np.isnan(table[n]).all() else np.nanmean(table[n]) for n in names])


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("like_a_detector", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(kind: Kind, like_a_detector: bool, seed: int) -> None:
    made = pictures(seed, 25, like_a_detector=like_a_detector)
    expected = of_pycocotools(made, kind, (1, 10, 100))
    assert np.count_nonzero(expected > 0.01) >= 11  # the comparison is about something
    np.testing.assert_allclose(ours(made, kind, (1, 10, 100)), expected, atol=AGREEMENT, rtol=0)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_equals_pycocotools_where_detections_are_many(kind: Kind) -> None:
    """More detections than the limit in most pictures: the limit decides."""
    made = pictures(7, 12, like_a_detector=True, copies=9)
    few = of_pycocotools(made, kind, (1, 3, 6))
    np.testing.assert_allclose(ours(made, kind, (1, 3, 6)), few, atol=AGREEMENT, rtol=0)
    assert abs(of_pycocotools(made, kind, (1, 10, 100))[0] - few[0]) > 0.01

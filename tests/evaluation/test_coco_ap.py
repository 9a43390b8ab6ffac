"""AP and AR against pycocotools, on invented and on detector-like detections, boxes and masks."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace

import numpy as np
import pytest

from medmaskrcnn.evaluation.metrics.average_precision import average_precision, coco_table, size_table
from medmaskrcnn.evaluation.metrics.match_detections import MatchResult, match_detections
from medmaskrcnn.evaluation.metrics.pairing import Kind, pair_case
from medmaskrcnn.evaluation.metrics.sizes import BALL_DIAMETERS_MM, COCO_AREAS, size_ranges_for
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray, Mask

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
    grid = pixel_grid((1, *masks[0].shape) if masks else (1, 160, 200))
    crops = [Mask((0, 0, 0), m[None]).tight() for m in masks]
    found = Instances.from_masks(grid, NAMES, labels, crops, scores=scores)
    if all(s == 1 for s in scores):
        return found
    boxes = found.boxes.astype(float)
    boxes[:, [1, 2, 4, 5]] += rng.normal(0, 0.4, (len(boxes), 4)).round(1)
    return replace(found, boxes=boxes.astype(np.float32))


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
            code = mask_utils.encode(np.asfortranarray(mask.dense(instances.grid.shape)[0].astype(np.uint8)))
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


def matched(made: list[Picture], kind: Kind) -> MatchResult:
    pairs = [pair_case(p.predicted, p.reference, class_names=NAMES, kind=kind, crowd=p.crowd) for p in made]
    return match_detections(pairs, NAMES, ranges=COCO_AREAS)


def ours(made: list[Picture], kind: Kind, max_detections: tuple[int, int, int]) -> np.ndarray:
    verdict, once = matched(made, kind), np.ones((1, len(made)))
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
@pytest.mark.parametrize("seed", range(2))
def test_equals_pycocotools_without_what_was_not_annotated(kind: Kind, seed: int) -> None:
    """Classes that are unknown in a picture are as if neither side had any of them there."""
    made = pictures(20 + seed, 25, like_a_detector=True)
    rng = np.random.default_rng(seed)
    known = [NAMES[:2] if keep > 0.6 else NAMES[:1] if keep > 0.3 else NAMES[1:2] for keep in rng.random(len(made))]

    def only(instances: Instances, names: tuple[str, ...]) -> np.ndarray:
        return np.flatnonzero([NAMES[label] in names for label in instances.labels])

    less = [
        Picture(
            p.predicted.select(only(p.predicted, names)),
            p.reference.select(only(p.reference, names)),
            p.crowd[only(p.reference, names)],
        )
        for p, names in zip(made, known, strict=True)
    ]
    pairs = [
        pair_case(p.predicted, p.reference, class_names=NAMES, kind=kind, crowd=p.crowd, annotated=names)
        for p, names in zip(made, known, strict=True)
    ]
    table = coco_table(match_detections(pairs, NAMES, ranges=COCO_AREAS), np.ones((1, len(made))))
    expected = of_pycocotools(less, kind, (1, 10, 100))
    for name, value in zip(("ap", "ap50", "ap75"), expected[:3], strict=True):
        assert np.nanmean(table[name]) == pytest.approx(value, abs=AGREEMENT)
    assert abs(expected[0] - of_pycocotools(made, kind, (1, 10, 100))[0]) > 1e-3


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_equals_pycocotools_where_detections_are_many(kind: Kind) -> None:
    """More detections than the limit in most pictures: the limit decides."""
    made = pictures(7, 12, like_a_detector=True, copies=9)
    few = of_pycocotools(made, kind, (1, 3, 6))
    np.testing.assert_allclose(ours(made, kind, (1, 3, 6)), few, atol=AGREEMENT, rtol=0)
    assert abs(of_pycocotools(made, kind, (1, 10, 100))[0] - few[0]) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_3d_boxes_equal_monai(seed: int) -> None:
    """AP of boxes in volumes, at IoU 0.1, 0.5 and 0.75, against MONAI's COCO metric."""
    from monai.apps.detection.metrics.coco import COCOMetric
    from monai.apps.detection.metrics.matching import matching_batch
    from monai.data.box_utils import box_iou

    rng = np.random.default_rng(seed)
    grid, cases, found, truth = Grid((30, 60, 60), np.diag([2.0, 2, 3, 1])), [], [], []
    for _ in range(10):
        m = int(rng.integers(1, 6))
        low = np.stack([rng.uniform(0, n - 12, m) for n in grid.shape], 1).round()
        true_boxes = np.concatenate([low, low + rng.integers(3, 12, (m, 3))], 1)
        boxes = np.concatenate([true_boxes + rng.normal(0, s, true_boxes.shape) for s in (0.4, 2.0)])
        boxes = np.concatenate([boxes, true_boxes[:1] + 20])
        boxes = np.concatenate([np.minimum(boxes[:, :3], boxes[:, 3:]), np.maximum(boxes[:, :3], boxes[:, 3:])], 1)
        labels, true_labels = rng.integers(0, 2, len(boxes)), rng.integers(0, 2, m)
        labels[:m] = true_labels
        scores = rng.permutation(len(boxes)) / len(boxes)
        found.append((boxes.astype(np.float32), labels, scores))
        truth.append((true_boxes.astype(np.float32), true_labels))
        sides = [
            Instances(
                grid,
                NAMES,
                kinds,
                worth.astype(np.float32),
                corners.astype(np.float32),
                (Mask((0, 0, 0), np.ones((1, 1, 1), bool)),) * len(kinds),
            )
            for corners, kinds, worth in ((boxes, labels, scores), (true_boxes, true_labels, np.ones(m)))
        ]
        cases.append(pair_case(*sides, class_names=NAMES, kind="box"))
    metric = COCOMetric(NAMES, iou_list=(0.1, 0.5, 0.75), max_detection=(100,))
    matched = matching_batch(
        iou_fn=lambda a, b: np.asarray(box_iou(a.astype(np.float64), b.astype(np.float64))),
        iou_thresholds=metric.iou_thresholds,
        pred_boxes=[f[0] for f in found],
        pred_classes=[f[1] for f in found],
        pred_scores=[f[2] for f in found],
        gt_boxes=[t[0] for t in truth],
        gt_classes=[t[1] for t in truth],
    )
    expected = metric(matched)[0]
    verdict = match_detections(cases, NAMES, ranges=BALL_DIAMETERS_MM, thresholds=(0.1, 0.5, 0.75))
    got = average_precision(verdict, np.ones((1, 10)), threshold_indices=[0, 1, 2])[:2, :, 0]
    for k, name in enumerate(NAMES[:2]):
        for t, iou in enumerate(("0.10", "0.50", "0.75")):
            assert got[k, t] == pytest.approx(expected[f"{name}_AP_IoU_{iou}_MaxDet_100"], abs=AGREEMENT)
    assert 0.05 < got[:, 2].mean() < got[:, 0].mean()


def test_weights_are_repeated_cases() -> None:
    """A case of weight 2 counts as if it were there twice, one of weight 0 as if it were not."""
    made = pictures(3, 6, like_a_detector=True)
    weights = np.array([[1.0, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0]])
    repeated = [made[k] for k in (0, 0, 2, 3, 3, 3)]
    for kind in ("box", "mask"):
        weighted = coco_table(matched(made, kind), weights) | size_table(matched(made, kind), weights)
        plain = coco_table(matched(repeated, kind), np.ones((1, 6)))
        plain |= size_table(matched(repeated, kind), np.ones((1, 6)))
        for name, values in plain.items():
            np.testing.assert_allclose(weighted[name][:, 1], values[:, 0], err_msg=name, atol=1e-12)


def test_a_volume_of_one_object_per_size() -> None:
    """In mm: balls of 6, 20 and 40 mm; without mm they are of no size."""
    shape = (24, 48, 48)
    at = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), -1) * (2.0, 1, 1)
    masks = [(at**2).sum(-1) <= (d / 2) ** 2 for d in (6, 20, 40)]
    for known, expected in ((True, [1.0, 1.0, 1.0]), (False, [np.nan] * 3)):
        grid = Grid(shape, np.diag([2.0, 1, 1, 1]), spacing_known=known)
        truth = Instances.from_masks(grid, NAMES, [0, 0, 0], [Mask((0, 0, 0), m).tight() for m in masks])
        verdict = match_detections([pair_case(truth, truth, class_names=NAMES)], NAMES, ranges=size_ranges_for([grid]))
        table = size_table(verdict, np.ones((1, 1)))
        got = [table[f"ap_{size}"][0, 0] for size in ("small", "medium", "large")]
        np.testing.assert_allclose(got, expected)
        assert verdict.n_references[0, 0].tolist() == ([3, 1, 1, 1] if known else [3, 0, 0, 0])
        assert coco_table(verdict, np.ones((1, 1)))["ap"][0, 0] == pytest.approx(1.0)


def test_pairing_goes_by_name_and_leaves_out_what_is_not_asked_for() -> None:
    (picture,) = pictures(5, 1, like_a_detector=True)
    turned = Instances(
        picture.predicted.grid,
        ("never there", "long", "other", "round"),
        np.array([3, 1, 0])[picture.predicted.labels],
        picture.predicted.scores,
        picture.predicted.boxes,
        picture.predicted.masks,
    )
    a = pair_case(picture.predicted, picture.reference, class_names=NAMES)
    b = pair_case(turned, picture.reference, class_names=NAMES)
    assert np.array_equal(a.labels, b.labels) and np.array_equal(a.iou, b.iou)
    only = pair_case(turned, picture.reference, class_names=("long",))
    assert len(only.labels) == (picture.predicted.labels == 1).sum()
    assert len(only.true_labels) == (picture.reference.labels == 1).sum()
    with pytest.raises(ValueError, match="one entry"):
        pair_case(turned, picture.reference, class_names=NAMES, crowd=np.zeros(1 + len(picture.reference), bool))
    with pytest.raises(ValueError, match="one grid"):
        other = picture.reference.select([])
        pair_case(turned, Instances(pixel_grid((1, 3, 3)), *[getattr(other, f) for f in FIELDS]), class_names=NAMES)


FIELDS = ("class_names", "labels", "scores", "boxes", "masks")

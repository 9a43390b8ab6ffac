"""AP against pycocotools on real pictures: nuclei found by thresholding, beside nuclei that people outlined."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medmaskrcnn.evaluation.metrics.average_precision import coco_table, size_table
from medmaskrcnn.evaluation.metrics.match_detections import match_detections
from medmaskrcnn.evaluation.metrics.pairing import Kind, pair_case
from medmaskrcnn.evaluation.metrics.sizes import COCO_AREAS
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.label_maps import instances_of_label_map

AGREEMENT = 1e-6
N_PICTURES = 12
AREAS = ("", "_small", "_medium")  # no nucleus of these is large


def from_labels(labels: np.ndarray, scores: np.ndarray | None = None) -> Instances:
    """One nucleus for each value."""
    values = np.unique(labels[labels > 0]).tolist()
    found = instances_of_label_map(labels[None], pixel_grid((1, *labels.shape)), {v: "nucleus" for v in values})
    return found if scores is None else replace(found, scores=scores)


def thresholded(picture: np.ndarray) -> Instances:
    """Bright islands at two thresholds, so that many nuclei are found twice; the score is their mean brightness."""
    sides = []
    for sigma, share in ((1.0, 0.35), (2.0, 0.55)):
        smooth = ndimage.gaussian_filter(picture.astype(np.float32), sigma)
        low, high = np.percentile(smooth, [5, 99.5])
        islands, n = ndimage.label(smooth > low + share * (high - low))
        scores = ndimage.mean(picture, islands, np.arange(1, n + 1)) / 255
        sides.append(from_labels(islands, np.asarray(scores, np.float32)))
    return Instances(
        sides[0].grid,
        ("nucleus",),
        np.concatenate([s.labels for s in sides]),
        np.concatenate([s.scores for s in sides]),
        np.concatenate([s.boxes for s in sides]),
        (*sides[0].masks, *sides[1].masks),
    )


@pytest.fixture(scope="module")
def pairs(medmaskrcnn_data: Path) -> list[tuple[Instances, Instances]]:
    files = sorted((medmaskrcnn_data / "nuclei" / "images").glob("*.png"))[:: 473 // N_PICTURES][:N_PICTURES]
    if not files:
        pytest.skip("MEDMASKRCNN_DATA has no nuclei")
    made = []
    for file in files:
        picture = np.asarray(Image.open(file).convert("L"))
        truth = np.asarray(Image.open(file.parents[1] / "masks" / file.name)).astype(np.int64)
        made.append((thresholded(picture), from_labels(truth)))
    return made


def of_pycocotools(pairs: list[tuple[Instances, Instances]], kind: Kind) -> dict[str, float]:
    coco, coco_eval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    mask_utils = pytest.importorskip("pycocotools.mask")
    truth: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for image, sides in enumerate(pairs):
        for side, entries in zip(sides, (found, truth), strict=True):
            for i in range(len(side)):
                whole = side.masks[i].dense(side.grid.shape).astype(np.uint8)
                low, high = side.boxes[i].astype(float)[[2, 1]], side.boxes[i].astype(float)[[5, 4]]
                entry: dict[str, object] = {"image_id": image, "category_id": 1, "score": float(side.scores[i])}
                shape = {"segmentation": mask_utils.encode(np.asfortranarray(whole[0]))}
                box = {"bbox": [*low, *(high - low)]}
                if entries is truth:
                    entry |= {"id": len(truth) + 1, "iscrowd": 0, "area": int(side.masks[i].n_voxels), **shape, **box}
                else:
                    entry |= box if kind == "box" else shape
                entries.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        images = [{"id": k, "height": p.grid.shape[1], "width": p.grid.shape[2]} for k, (p, _) in enumerate(pairs)]
        known.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "nucleus"}]}
        known.createIndex()
        evaluation = coco_eval.COCOeval(known, known.loadRes(found), "bbox" if kind == "box" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][:, :, 0], evaluation.eval["recall"][:, 0]
    figures = {f"ap{area}": precision[:, :, a, 2].mean() for a, area in enumerate(AREAS)}
    figures |= {"ap50": precision[0, :, 0, 2].mean(), "ap75": precision[5, :, 0, 2].mean()}
    return figures | {f"ar_{n}": recall[:, 0, k].mean() for k, n in enumerate((1, 10, 100))}


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_equals_pycocotools_on_nuclei(pairs: list[tuple[Instances, Instances]], kind: Kind) -> None:
    names, once = ("nucleus",), np.ones((1, len(pairs)))
    paired = [pair_case(found, truth, class_names=names, kind=kind) for found, truth in pairs]
    verdict = match_detections(paired, names, ranges=COCO_AREAS)
    table = coco_table(verdict, once) | size_table(verdict, once)
    expected = of_pycocotools(pairs, kind)
    assert sum(len(found) for found, _ in pairs) > 500 and 0.2 < expected["ap50"] < 0.99
    for name, value in expected.items():
        assert table[name][0, 0] == pytest.approx(value, abs=AGREEMENT), name

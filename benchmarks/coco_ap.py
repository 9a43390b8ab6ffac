"""How long COCO's AP takes: ours beside faster-coco-eval, in one process, on the same detections.

    python benchmarks/coco_ap.py --json benchmarks/results/coco-ap.json

1,000 pictures of 20 instances. Both start from what they are at home with, in memory: ours from instances with masks on
crops, faster-coco-eval from its data sets with masks run-length coded (their coding and indexing is not counted), and
end with the same twelve figures, which are compared. Runs alternate, so that both see the same machine; the medians of
wall clock and of processor time count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from machine import machine

from medmaskrcnn.evaluation.metrics.average_precision import coco_table, size_table
from medmaskrcnn.evaluation.metrics.match_detections import COCO_THRESHOLDS, match_detections
from medmaskrcnn.evaluation.metrics.pairing import Kind, pair_case
from medmaskrcnn.evaluation.metrics.sizes import COCO_AREAS
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.rle import rle_encode, run_lengths

SHAPE = (480, 640)
TARGET = 1.5  # times as long as faster-coco-eval
STATS = [f"ap{part}" for part in ("", "50", "75", "_small", "_medium", "_large")]
STATS += [f"ar_{part}" for part in ("1", "10", "100", "small", "medium", "large")]

Pair = tuple[Instances, Instances]


def make_picture(rng: np.random.Generator, n_instances: int, per_instance: int, n_classes: int) -> Pair:
    """Detections and truth of one picture: ellipses of 6 to 60 pixels' radius, and guesses near each."""
    truth: list[tuple[int, float, Mask]] = []
    found = []
    while len(truth) < n_instances:
        centre, radii = rng.uniform((20, 20), np.subtract(SHAPE, 20)), rng.uniform(6, 60) * rng.uniform(0.7, 1.3, 2)
        label = int(rng.integers(n_classes))
        truth.append((label, 1.0, ellipse(centre, radii)))
        for _ in range(per_instance):
            near = ellipse(centre + rng.normal(0, 0.1, 2) * radii, radii * rng.uniform(0.8, 1.2, 2))
            found.append((label if rng.random() < 0.9 else int(rng.integers(n_classes)), float(rng.random()), near))
    names = tuple(f"class {k}" for k in range(n_classes))
    return to_instances(found, names), to_instances(truth, names)


def ellipse(centre: np.ndarray, radii: np.ndarray) -> Mask:
    """Its voxels in the one slice."""
    low = np.maximum(np.floor(centre - radii), 0).astype(int)
    high = np.minimum(np.ceil(centre + radii) + 1, SHAPE).astype(int)
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
    return Mask((0, *low), inside[None]).tight()


def to_instances(objects: list[tuple[int, float, Mask]], names: tuple[str, ...]) -> Instances:
    """Instances with the boxes around their masks."""
    labels, scores, masks = zip(*objects, strict=True)
    return Instances.from_masks(pixel_grid((1, *SHAPE)), names, labels, masks, scores=scores)


def coco_entries(instances: Instances, image: int) -> list[dict[str, Any]]:
    """COCO's dictionaries of a picture's instances."""
    entries = []
    for i, mask in enumerate(instances.masks):
        _, top, left, _, bottom, right = instances.boxes[i].tolist()
        entries.append(
            {
                "image_id": image,
                "category_id": int(instances.labels[i]) + 1,
                "score": float(instances.scores[i]),
                "bbox": [left, top, right - left, bottom - top],
                "area": mask.n_voxels,
                "iscrowd": 0,
                "segmentation": {"size": list(SHAPE), "counts": rle_encode(run_lengths(mask.dense((1, *SHAPE))[0]))},
            }
        )
    return entries


def load_theirs(pairs: list[Pair], kind: Kind) -> tuple[COCO, COCO]:
    """Truth and detections as faster-coco-eval holds them."""
    annotations = [entry for k, (_, truth) in enumerate(pairs) for entry in coco_entries(truth, k)]
    found = [entry for k, (predicted, _) in enumerate(pairs) for entry in coco_entries(predicted, k)]
    for entry in found:
        del entry["segmentation" if kind == "box" else "bbox"], entry["area"], entry["iscrowd"]
    truth = COCO(
        {
            "images": [{"id": k, "height": SHAPE[0], "width": SHAPE[1]} for k in range(len(pairs))],
            "annotations": [{**entry, "id": k} for k, entry in enumerate(annotations, start=1)],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(pairs[0][0].class_names)],
        }
    )
    return truth, truth.loadRes(found)


def run_theirs(truth: COCO, found: COCO, kind: Kind) -> np.ndarray:
    """The twelve figures of faster-coco-eval."""
    evaluation = COCOeval_faster(truth, found, "bbox" if kind == "box" else "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.array(evaluation.stats[:12], np.float64)


def run_ours(pairs: list[Pair], kind: Kind) -> np.ndarray:
    """The same by ours."""
    names = pairs[0][0].class_names
    paired = [pair_case(predicted, truth, class_names=names, kind=kind) for predicted, truth in pairs]
    judged = match_detections(paired, names, ranges=COCO_AREAS, thresholds=COCO_THRESHOLDS)
    once = np.ones((1, len(pairs)))
    table = coco_table(judged, once) | size_table(judged, once)
    return np.array([np.nanmean(table[name]) for name in STATS])


def measure(pairs: list[Pair], kind: Kind, runs: int) -> dict[str, Any]:
    """Medians of both in seconds, and how far their figures are apart."""
    with contextlib.redirect_stdout(io.StringIO()):
        data = load_theirs(pairs, kind)
        seconds: dict[str, list[tuple[float, float]]] = {"medmaskrcnn": [], "faster-coco-eval": []}
        figures = {}
        for _ in range(runs):
            for name, call in (
                ("medmaskrcnn", lambda: run_ours(pairs, kind)),
                ("faster-coco-eval", lambda: run_theirs(*data, kind)),
            ):
                start = time.perf_counter(), time.process_time()
                figures[name] = call()
                seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = (
        {name: round(statistics.median(run[which] for run in timed), 3) for name, timed in seconds.items()}
        for which in range(2)
    )
    return {
        "median_seconds": wall,
        "median_processor_seconds": processor,
        "times_as_long": round(wall["medmaskrcnn"] / wall["faster-coco-eval"], 3),
        "times_the_processor_time": round(processor["medmaskrcnn"] / processor["faster-coco-eval"], 3),
        "largest_difference": float(np.abs(figures["medmaskrcnn"] - figures["faster-coco-eval"]).max()),
        "ap": float(figures["medmaskrcnn"][0]),
    }


def main() -> None:
    """Print the table, write it if asked, fail if ours is too slow or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--guesses", type=int, default=1, help="detections per instance")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured_on = machine("numpy", "faster-coco-eval")
    results = {}
    for n_classes in (1, 20):
        rng = np.random.default_rng(0)
        pairs = [make_picture(rng, options.instances, options.guesses, n_classes) for _ in range(options.images)]
        for kind in ("box", "mask"):
            name = f"{kind}, {options.instances * options.guesses} detections a picture, {n_classes} classes"
            results[name] = measure(pairs, kind, options.runs)  # type: ignore[arg-type]
            print(name, results[name], flush=True)
    document = {
        **measured_on,
        "images": options.images,
        "instances_per_image": options.instances,
        "runs": options.runs,
        "results": results,
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if any(r["times_as_long"] > TARGET or r["largest_difference"] > 1e-6 for r in results.values()):
        raise SystemExit(f"too slow (more than {TARGET} times) or different figures")


if __name__ == "__main__":
    main()

"""``coco.json``: the instances in COCO's format for detection, slice by slice.

COCO describes 2D images, not volumes: each slice along the array's D axis is an image, each instance has an
annotation in every slice it occupies, and annotations of one instance share its ``instance_id`` (its id in the label
map). Masks are compressed RLE as in pycocotools, in column-major order. A 2D image counts as one slice.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from medmaskrcnn.report.result_document import to_json
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN
from medmaskrcnn.structures.rle import rle_encode, run_lengths


def coco_document(result: CaseResult) -> dict[str, Any]:
    """The content of ``coco.json``: ``info``, ``images``, ``categories`` and ``annotations``."""
    found = result.instances
    depth, height, width = found.grid.shape
    images = [
        {"id": d + 1, "file_name": f"slice_{d + 1:04d}", "height": height, "width": width, "slice": d}
        for d in range(depth)
    ]
    stamp = [OUT_OF_DOMAIN] if result.record.out_of_domain else []
    annotations = [a for i in range(len(found)) for a in _annotations(found, i)]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "info": {
            "description": "; ".join([*stamp, "research use only, not a medical device"]),
            "contributor": result.record.software,
            "model": {"name": result.record.model_name, "sha256": result.record.model_sha256},
        },
        "images": images,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(found.class_names)],
        "annotations": annotations,
    }


def write_coco(result: CaseResult, stream: IO[bytes]) -> None:
    """Write the result's instances as COCO JSON; the same result gives the same bytes."""
    stream.write(to_json(coco_document(result)).encode())


def _annotations(found: Instances, i: int) -> list[dict[str, Any]]:
    """One instance's annotations, slice by slice; slices without its voxels have none."""
    along, rows, columns = found.masks[i].window
    annotations = []
    for k, crop in enumerate(found.masks[i].array):
        if not crop.any():
            continue
        plane = np.zeros(found.grid.shape[1:], bool)
        plane[rows, columns] = crop
        hit_rows, hit_columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
        x, y = columns.start + int(hit_columns[0]), rows.start + int(hit_rows[0])
        annotations.append(
            {
                "id": 0,
                "image_id": along.start + k + 1,
                "category_id": int(found.labels[i]) + 1,
                "instance_id": i + 1,
                "score": json.loads(str(found.scores[i])),
                "bbox": [x, y, int(np.ptp(hit_columns)) + 1, int(np.ptp(hit_rows)) + 1],
                "area": int(np.count_nonzero(crop)),
                "iscrowd": 0,
                "segmentation": {"size": list(plane.shape), "counts": rle_encode(run_lengths(plane))},
            }
        )
    return annotations

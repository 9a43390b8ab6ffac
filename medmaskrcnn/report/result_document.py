"""``result.json`` and ``run.json``: the machine-readable result, a versioned contract (``docs/output-contract.md``).

Index order is that of ``labels.nii.gz``: x, y, z, which are the array's axes W, H, D. Boxes are half-open:
``min`` is the first voxel, ``max`` one past the last. Voxel coordinates are continuous, voxel ``i`` covering
``[i, i + 1)``; subtract half a voxel before applying ``geometry.affine_vox_to_ras``, because that affine, as in NIfTI,
maps the integer index of a voxel to its centre.

Repeating a run gives the same ``result.json``; times, host and paths are only in ``run.json``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import numpy as np

from medmaskrcnn.report.units import intensity_unit
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.overlap import overlapping_pairs
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN, centroid_xyz
from medmaskrcnn.structures.volume import Volume

SCHEMA_VERSION = 1
_LIST_OF_NUMBERS = re.compile(r"\[\n\s*(?:[-+.\deE]+,\n\s*)*[-+.\deE]+\n\s*\]")


def result_document(result: CaseResult, volume: Volume) -> dict[str, Any]:
    """The content of ``result.json``; every field is described in ``docs/output-contract.md``.

    Args:
        result: The result.
        volume: The scan it belongs to; only its modality is used.
    """
    record, found = result.record, result.candidates
    names = [found.class_names[found.labels[i]] for i in result.kept]
    counts = Counter(names)
    warnings = list(record.warnings)
    if record.out_of_domain and OUT_OF_DOMAIN not in warnings:
        warnings.insert(0, OUT_OF_DOMAIN)
    return {
        "schema_version": SCHEMA_VERSION,
        "software": record.software,
        "research_use_only": True,
        "out_of_domain": record.out_of_domain,
        "warnings": warnings,
        "model": {"name": record.model_name, "sha256": record.model_sha256, "licence": record.model_licence},
        "device": record.device,
        "precision": record.precision,
        "score_threshold": float(result.score_threshold),
        "settings": record.settings,
        "source": record.source,
        "geometry": _geometry(found.grid),
        "class_names": list(found.class_names),
        "counts": {name: counts[name] for name in found.class_names},
        "instances": [_instance(result, i, number, volume) for number, i in enumerate(result.kept, start=1)],
        "overlaps": _overlaps(result),
    }


def run_document(result: CaseResult, volume: Volume) -> dict[str, Any]:
    """The content of ``run.json``: what varies from run to run (times, host, paths)."""
    return {"schema_version": SCHEMA_VERSION, "input_files": list(volume.provenance.files), "run": result.run}


def to_json(document: dict[str, Any]) -> str:
    """A document as strict JSON text: numbers that JSON does not support (NaN, infinity) become null."""
    text = json.dumps(_strict(document), indent=2, ensure_ascii=False, allow_nan=False)
    return _LIST_OF_NUMBERS.sub(lambda found: "".join(found[0].split()).replace(",", ", "), text) + "\n"


def _geometry(grid: Grid) -> dict[str, Any]:
    return {
        "shape": list(reversed(grid.shape)),
        "affine_vox_to_ras": grid.affine_xyz_to_ras.tolist(),
        "spacing_mm": list(reversed(grid.spacing_mm)) if grid.spacing_mm else None,
        "unit": "mm" if grid.spacing_known else "px",
    }


def _instance(result: CaseResult, i: int, number: int, volume: Volume) -> dict[str, Any]:
    found, m = result.candidates, result.measurements[i]
    grid, modality = found.grid, volume.modality or result.record.source.get("modality")
    mask, box = found.masks[i], [float(x) for x in found.boxes[i]]
    sizes = {
        "volume_{}": m.volume_unit3,
        "longest_axial_diameter_{}": m.longest_axial_diameter,
        "perpendicular_diameter_{}": m.perpendicular_diameter,
    }
    in_mm = {name.format("mm3" if "volume" in name else "mm"): value for name, value in sizes.items()}
    in_px = {name.format("px"): value for name, value in sizes.items()}
    unknown = dict.fromkeys(in_mm, None)
    centre = centroid_xyz(m, grid)
    return {
        "id": number,
        "class": found.class_names[found.labels[i]],
        "score": _shortest(found.scores[i]),
        **(in_mm if grid.spacing_known else {**unknown, **in_px}),
        "centroid_ras_mm": list(m.centroid_ras) if grid.spacing_known and m.centroid_ras is not None else None,
        "centroid_vox": list(centre) if centre is not None else None,
        "intensity": {
            "mean": m.mean_intensity,
            "min": m.min_intensity,
            "max": m.max_intensity,
            "unit": intensity_unit(modality),
        },
        "n_voxels": mask.n_voxels,
        "box_vox": {"min": list(reversed(mask.start)), "max": list(reversed(mask.end))},
        "detection_box_vox": {"min": box[2::-1], "max": box[:2:-1]},
    }


def _shortest(score: np.float32) -> float:
    """A float32 as the shortest decimal that identifies it: 0.9, not 0.8999999761581421."""
    return float(str(score))


def _overlaps(result: CaseResult) -> list[dict[str, Any]]:
    pairs = overlapping_pairs(result.instances.masks)
    return [{"ids": [i + 1, j + 1], "shared_voxels": shared} for i, j, shared in pairs]


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, str):  # a path may hold bytes that are not UTF-8
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

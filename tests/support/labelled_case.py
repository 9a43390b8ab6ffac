"""A labelled case on disk: a bright sphere with a smaller one inside, in a noisy scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SPACING_MM = (3.0, 1.2, 1.5)  # of the file's D, H, W
SHAPE = (16, 44, 36)


def sphere(radius_mm: float, centre_mm: tuple[float, float, float]) -> np.ndarray:
    """Voxels of the file's grid whose centres lie in a sphere; ``centre_mm`` is measured from the grid's corner."""
    at = np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(at, centre_mm, strict=True)) <= radius_mm**2


def write_case(folder: Path, **changes: Any) -> Path:
    """Image, label map and manifest; ``changes`` replace keys of the manifest. Returns the manifest's path."""
    labels = np.zeros(SHAPE, np.int16)
    labels[sphere(16, (24, 26, 27))] = 1
    labels[sphere(5, (24, 22, 30))] = 2
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    image[labels > 0] += 100
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1])  # i to the left, j to the back, k up
    for name, array in (("scan", image), ("labels", labels)):
        nib.save(nib.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")
    instances = [{"value": 1, "class": "liver", "part_of": None}, {"value": 2, "class": "tumour", "part_of": 1}]
    case = {"id": "c1", "patient": "p1", "image": "scan.nii.gz", "label": "labels.nii.gz", "split": "train"}
    manifest = {
        "version": 1,
        "name": "spheres",
        "modality": "CT",
        "licence": "CC0-1.0",
        "class_names": ["liver", "tumour"],
        "cases": [{**case, "instances": instances}],
        **changes,
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[..., Path]:
    """``labelled(name=..., cases=...)``: write the case, give the manifest's path."""
    return lambda **changes: write_case(tmp_path, **changes)

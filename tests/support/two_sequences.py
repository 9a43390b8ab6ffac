"""Cases of two sequences on disk by nnU-Net's names, and a tiny model that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from tiny_models import save_tiny, tiny_settings

NAMES = ("T1", "FLAIR")
SHAPE = (12, 40, 44)  # D, H, W
AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])  # x to the left, y to the back, z up


def write_cases(folder: Path, cases: tuple[str, ...] = ("a", "b")) -> Path:
    """``imagesTr/CASE_0000.nii.gz``, ... with a box that is bright in the first sequence and dark in the second."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        draw = np.random.default_rng(number)
        inside = np.zeros(SHAPE, np.uint8)
        inside[3:9, 8 + number : 24 + number, 10:28] = 1
        for channel, contrast in enumerate((150.0, -100.0)):
            image = draw.normal(200, 10, SHAPE) + contrast * inside
            _write(image.astype(np.int16), folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        _write(inside, folder / "labelsTr" / f"{case}.nii.gz")
    described = {
        "channel_names": {str(i): name for i, name in enumerate(NAMES)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def _write(array: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(array.T, AFFINE), path)


def save_model_of_two(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A tiny 2D model with random weights that takes two sequences."""
    settings = tiny_settings(
        model={"image_channels": 2},
        detection={"mask_threshold": 0.0},
        preprocess={"channel_names": names, "orientation": "SPL"},
    )
    return save_tiny(settings, path)

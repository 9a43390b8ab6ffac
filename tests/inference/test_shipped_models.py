"""The models that ship, on real scans beside labels that people drew; all but abdomen-mr have not seen these scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import medmaskrcnn
from medmaskrcnn.hub.model_file import shipped_models
from medmaskrcnn.io.read import read_volume

SPLITS = Path(__file__).parents[2] / "benchmarks" / "splits"
MAX_MODEL_BYTES = 12e6


def held_out(name: str, count: int) -> list[str]:
    """The first scans of a data set's test split."""
    return list(json.loads((SPLITS / f"{name}.json").read_text(encoding="utf-8"))["test"][:count])


def found_and_false(scan: Path, label: Path, model: str) -> tuple[int, int, int]:
    """How many labelled objects are found (IoU 0.5), how many there are, how many instances are no object."""
    result = medmaskrcnn.segment(scan, model)
    truth: NDArray[np.int64] = np.asarray(read_volume(label).array[0]).astype(np.int64)
    sizes, matched = np.bincount(truth.ravel()), set()
    for i in result.kept:
        mask = result.candidates.masks[i]
        shared = np.bincount(truth[mask.window][mask.array], minlength=len(sizes))
        iou = shared / np.maximum(1, sizes + mask.n_voxels - shared)
        iou[0] = 0.0
        if iou.max() >= 0.5:
            matched.add(int(iou.argmax()))
    return len(matched), int((sizes[1:] > 0).sum()), len(result.kept) - len(matched)


def test_each_is_small() -> None:
    assert {
        name: path.stat().st_size for name, path in shipped_models().items() if path.stat().st_size > MAX_MODEL_BYTES
    } == {}


def test_nuclei_are_found(medmaskrcnn_data: Path) -> None:
    data = medmaskrcnn_data / "nuclei"
    counts = [
        found_and_false(data / "images" / f"{name}.png", data / "masks" / f"{name}.png", "nuclei")
        for name in held_out("nuclei", 5)
    ]
    found, there, false = np.sum(counts, axis=0)
    assert found >= 0.8 * there
    assert false <= 0.2 * there


@pytest.mark.parametrize(
    ("folder", "split", "model", "scans", "least"),
    [
        ("Task04_Hippocampus", "hippocampus", "hippocampus-mr", 4, 0.85),
        ("AbdomenMR", "abdomen", "abdomen-mr", 3, 0.75),
        ("SarcomaMR", "sarcoma", "sarcoma-mr", 8, 0.5),
    ],
)
@pytest.mark.slow
def test_organs_and_tumours_are_found(
    medmaskrcnn_data: Path, folder: str, split: str, model: str, scans: int, least: float
) -> None:
    data = medmaskrcnn_data / folder
    counts = [
        found_and_false(data / "imagesTr" / f"{name}.nii.gz", data / "labelsTr" / f"{name}.nii.gz", model)
        for name in held_out(split, scans)
    ]
    found, there, false = np.sum(counts, axis=0)
    assert found >= least * there
    assert false <= max(1, 0.75 * there)

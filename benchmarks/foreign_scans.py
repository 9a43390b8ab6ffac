"""Which scans each model refuses, stamps or takes: every model on every kind, modality told and hidden.

    python benchmarks/foreign_scans.py DATA --json benchmarks/results/foreign-scans.json
    python benchmarks/foreign_scans.py DATA --models nuclei --fit            measure anew what the shipped files lack

``DATA`` holds the folders that :data:`KINDS` names. A model is fitted on three of four scans of its own kind, by the
hash of their names; the others show whether it knows its own kind. ``--fit`` writes what it remembers of them into
``medmaskrcnn/weights/additions.json``, since the shipped files, whose SHA-256 stands in results, stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from medmaskrcnn import load_model, read_volume
from medmaskrcnn.errors import MedMaskRCNNError, UnsuitableScanError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.hub.model_file import ADDITIONS
from medmaskrcnn.inference.familiarity import check_familiar, fit_familiarity, pooled_features
from medmaskrcnn.inference.prepare import prepare, turned_spacing
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn_datasets.phantom import make_phantom
from medmaskrcnn_datasets.phantom_settings import random_settings

KINDS = {
    "AbdomenCT": ("CT", "AbdomenCT/imagesTr/*.nii.gz"),
    "LungCT": ("CT", "LungCT/imagesTr/*.nii.gz"),
    "HeadNeckCT": ("CT", "HeadNeckCT/imagesTr/*.nii.gz"),
    "LungNoduleCT": ("CT", "LungNoduleCT/imagesTr/*.nii.gz"),
    "AbdomenMR": ("MR", "AbdomenMR/imagesTr/*.nii.gz"),
    "SarcomaMR": ("MR", "SarcomaMR/imagesTr/*.nii.gz"),
    "hippocampus": ("MR", "Task04_Hippocampus/imagesTr/[!.]*.nii.gz"),
    "BrainTumourMR": ("MR", "BrainTumourMR/images/*.png"),
    "nuclei": (None, "nuclei/images/*.png"),
    "phantom": ("CT", None),
    "whole CT": ("CT", "dicom/STS_*/CT"),
    "whole PET": ("PT", "dicom/STS_*/PET"),
}
"""Modality and files of each kind of scan."""

OWN = {"nuclei": "nuclei", "abdomen-mr": "AbdomenMR", "sarcoma-mr": "SarcomaMR", "hippocampus-mr": "hippocampus"}
"""The kind for which each model was made."""


def scans(data: Path, kind: str, most: int) -> Iterator[tuple[str, Volume]]:
    """Name and volume of at most so many scans of a kind, in the order of their names' hashes."""
    modality, pattern = KINDS[kind]
    if pattern is None:
        yield from ((f"phantom {seed}", make_phantom(random_settings(seed)).volume) for seed in range(min(most, 4)))
        return
    for path in sorted(data.glob(pattern), key=_order)[:most]:
        try:
            yield path.name, replace(read_volume(path), modality=modality)
        except MedMaskRCNNError as error:
            print(f"{path.name} was not read: {error}")


def _order(path: Path) -> bytes:
    return hashlib.sha256(str(path.name if path.is_file() else path.parent.name).encode()).digest()


def is_for_fitting(name: str) -> bool:
    """Three scans of four."""
    return hashlib.sha256(name.encode()).digest()[0] % 4 != 0


def outcome(loaded: LoadedModel, volume: Volume) -> str:
    """``refused``, ``stamped`` or ``taken``."""
    try:
        warnings = check_suitable(volume, loaded.settings)
        prepared = prepare(volume, loaded.settings.preprocess)
        warnings += check_familiar(loaded, volume, prepared, SegmentOptions())
    except UnsuitableScanError:
        return "refused"
    return "stamped" if warnings else "taken"


def fit(loaded: LoadedModel, data: Path, most: int) -> dict[str, object]:
    """What the model remembers of the scans of its own kind."""
    features, spacings = [], []
    for name, volume in scans(data, OWN[loaded.settings.card.name], most):
        if is_for_fitting(name):
            prepared = prepare(volume, loaded.settings.preprocess)
            features.append(pooled_features(loaded, prepared.tensor))
            spacings.append(turned_spacing(volume, prepared.axes))
    fitted = fit_familiarity(features, spacings)
    if fitted is None:
        raise SystemExit(f"{len(features)} scans are too few")
    return fitted.model_dump(mode="json")


def main() -> None:
    """Fit if asked to, then print and save the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--models", nargs="*", default=[*OWN], help="--models nuclei; by default all that have a kind")
    parser.add_argument("--most", type=int, default=20, help="scans of each other kind: --most 20")
    parser.add_argument("--most-own", type=int, default=80, help="scans of its own kind: --most-own 80")
    parser.add_argument("--fit", action="store_true", help="write medmaskrcnn/weights/additions.json first")
    parser.add_argument("--json", type=Path, help="file of the matrix: --json benchmarks/results/foreign-scans.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.fit:
        for name in asked.models:
            additions = json.loads(ADDITIONS.read_text("utf-8"))
            fitted = fit(load_model(name, device="cpu"), asked.data, asked.most_own)
            additions.setdefault(name, {})["familiarity"] = fitted
            lines = (f"{json.dumps(one)}: {json.dumps(more)}" for one, more in sorted(additions.items()))
            ADDITIONS.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    matrix: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for name in asked.models:
        loaded, matrix[name] = load_model(name, device="cpu"), {}
        for kind in KINDS:
            is_own = OWN.get(name) == kind
            told: dict[str, Counter[str]] = {"known": Counter(), "hidden": Counter()}
            for scan, volume in scans(asked.data, kind, asked.most_own if is_own else asked.most):
                if not (is_own and is_for_fitting(scan)):
                    told["known"][outcome(loaded, volume)] += 1
                    told["hidden"][outcome(loaded, replace(volume, modality=None))] += 1
            matrix[name][kind] = {how: dict(counts) for how, counts in told.items()}
            print(f"{name:16}{kind:16}{'own ' if is_own else '    '}{matrix[name][kind]}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(matrix, indent=1) + "\n")


if __name__ == "__main__":
    main()

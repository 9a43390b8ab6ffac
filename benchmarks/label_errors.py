"""How many of ten planted label errors are among the first twenty suspects: nuclei of two classes.

    python benchmarks/label_errors.py --data DATA/nuclei --json benchmarks/results/label-errors.json

Nuclei are labelled ``small`` or ``large`` by their area. In ten images one label each is spoilt, two of each kind:
removed, given the other class (far from the border between the classes), shifted by half of its width, merged with
its nearest neighbour, and an object drawn where none is. A training with folds learns from the spoilt labels; each
image is then judged by the network that has not learnt from it, and the suspects are ranked. The original labels have
errors too, which also come up: the figure is a lower bound of what is worth looking at.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.label_errors import find_label_errors
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.training.folds import train_folds, with_folds
from medmaskrcnn.training.plan import Plan, read_plan

KINDS = ("missing", "class", "shifted", "merged", "extra")
CLASSES = ("small", "large")
_FIRST = 20  # suspects
_NEAR = 1.0  # of an object's longest side: how far a suspect may be from what was planted
_FEWEST, _LEAST_AREA = 8, 60  # nuclei in an image, pixels of a nucleus that is spoilt

Labels = NDArray[np.int32]


def spoilt(labels: Labels, classes: dict[int, int], kind: str, border: float, random: np.random.Generator) -> Any:
    """Plant an error in place; gives the pixel in its middle and its longest side, or ``None`` if none fits."""
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=len(boxes) + 1)
    fit = [v for v in classes if areas[v] >= _LEAST_AREA and _inside(boxes[v - 1], labels.shape)]
    if kind == "class":
        fit = [v for v in fit if not border / 1.8 < areas[v] < border * 1.8]
    for value in random.permutation(fit).tolist():
        box = boxes[value - 1]
        middle = [(s.start + s.stop) // 2 for s in box]
        side = max(s.stop - s.start for s in box)
        own = labels == value
        if kind == "missing":
            labels[own] = 0
            del classes[value]
        elif kind == "class":
            classes[value] = 1 - classes[value]
        elif kind in ("shifted", "extra"):
            moved = _moved(own, labels, side, far=kind == "extra")
            if moved is None:
                continue
            if kind == "shifted":
                labels[own] = 0
                labels[moved & (labels == 0)] = value
            else:
                new = int(labels.max()) + 1
                labels[moved] = new
                classes[new] = classes[value]
                middle = [int(n) for n in np.argwhere(moved).mean(axis=0)]
        else:
            around = np.unique(labels[ndimage.binary_dilation(own, iterations=4)])
            others = [v for v in around.tolist() if v not in (0, value) and areas[v] >= _LEAST_AREA]
            if not others:
                continue
            labels[labels == others[0]] = value
            del classes[others[0]]
            middle = [int(n) for n in np.argwhere(labels == value).mean(axis=0)]
            side *= 2
        return middle, side
    return None


def _inside(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return all(s.start > 0 and s.stop < n for s, n in zip(box, shape, strict=True))


def _moved(own: NDArray[np.bool_], labels: Labels, side: int, *, far: bool) -> NDArray[np.bool_] | None:
    """The object half its side away, or anywhere that is empty; ``None`` if there is no room."""
    if not far:
        return np.roll(own, (side // 2, 0), axis=(0, 1))
    for rows in range(0, labels.shape[0], side):
        for columns in range(0, labels.shape[1], side):
            moved = np.roll(own, (rows, columns), axis=(0, 1))
            if not labels[ndimage.binary_dilation(moved, iterations=3)].any():
                return moved
    return None


def dataset(options: argparse.Namespace) -> tuple[Manifest, dict[str, Any]]:
    """The images with their labels, ten of them spoilt; where and how."""
    random = np.random.default_rng(options.seed)
    files = sorted((options.data / "masks").glob("*.png"))
    masks = {file.stem: np.asarray(Image.open(file)).astype(np.int32) for file in files}
    many = [name for name, labels in masks.items() if len(np.unique(labels)) > _FEWEST]
    chosen = [many[i] for i in random.permutation(len(many))[: options.images]]
    areas = np.concatenate([np.bincount(masks[n].ravel())[1:] for n in chosen])
    border = float(np.median(areas[areas > 0]))
    folder = options.folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    planted: dict[str, Any] = {}
    wanted = [kind for kind in KINDS for _ in range(2)]
    cases = []
    for name in chosen:
        labels = masks[name]
        sizes = np.bincount(labels.ravel())
        classes = {v: int(sizes[v] > border) for v in range(1, len(sizes)) if sizes[v]}
        if wanted:
            where = spoilt(labels, classes, wanted[0], border, random)
            if where is not None:
                planted[name] = {"kind": wanted.pop(0), "middle": where[0], "side": where[1]}
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{name}_labels.png")
        instances = [{"value": v, "class": CLASSES[c]} for v, c in classes.items()]
        image = os.path.relpath(options.data / "images" / f"{name}.png", folder)
        cases.append(
            {"id": name, "patient": name, "image": image, "label": f"{name}_labels.png", "instances": instances}
        )
    manifest = {"version": 1, "name": "spoilt nuclei", "class_names": list(CLASSES), "cases": cases}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_manifest(folder / "manifest.json"), planted


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan of the nuclei for two classes."""
    plan = read_plan("nuclei")
    model = plan.model.model_copy(update={"class_names": CLASSES})
    loop = plan.train.of_length(steps=options.steps).model_copy(update={"validate_every": options.steps})
    augment = plan.augment.model_copy(update={"zoom": 0.1})  # more would turn one class into the other
    return plan.model_copy(update={"model": model, "train": loop, "augment": augment})


def main() -> None:
    """Plant, train, rank; print and write where each planted error came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder nuclei")
    parser.add_argument("--folder", type=Path, default=Path("label-errors"))
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=400, help="of the training of each fold")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    manifest, planted = dataset(options)
    run = options.folder / "run"
    record = train_folds(
        manifest,
        plan_of(options),
        run,
        folds=options.folds,
        resume=(run / "plan.yaml").exists(),
        workers=options.workers,
    )
    found = find_label_errors(
        record.model,
        with_folds(manifest, options.folds),
        pictures=_FIRST,
        options=SegmentOptions(allow_out_of_domain=True),
    )
    found.write(options.folder / "suspects")
    ranks: dict[str, int | None] = dict.fromkeys(planted)
    for rank, suspect in enumerate(found.suspects, start=1):
        error = planted.get(suspect.case)
        if error and ranks[suspect.case] is None:
            away = np.linalg.norm(np.subtract(suspect.centre_vox[1:], error["middle"]))
            if away <= _NEAR * error["side"]:
                ranks[suspect.case] = rank
    for name, error in planted.items():
        print(f"{error['kind']:8} in {name[:12]}: suspect number {ranks[name]} of {len(found.suspects)}")
    among = sum(rank is not None and rank <= _FIRST for rank in ranks.values())
    print(f"{among} of {len(planted)} planted errors are among the first {_FIRST} of {len(found.suspects)} suspects")
    if options.json:
        errors = [{**planted[name], "rank": ranks[name]} for name in planted]
        how = {"images": len(manifest.cases), "steps": options.steps, "folds": options.folds}
        document = {**machine(), **how, "among_the_first_20": among, "planted": errors}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

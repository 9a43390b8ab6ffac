"""The table of wrong label sets in ``training-data.md``: each is made, and checked as ``train --check`` does.

``python docs/make/wrong_labels.py`` writes it into the page; a test compares them.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn_datasets.convert import to_manifest

PAGE = Path(__file__).resolve().parents[1] / "training-data.md"
BEGIN, END = "<!-- begin: made by docs/make/wrong_labels.py -->", "<!-- end -->"
HEAD = "| the set | what is said of it |\n|---|---|\n"
N = 6

Z, Y, X = np.mgrid[:40, :32, :32]


def text() -> str:
    """The table."""
    rows = []
    for what, make in SETS.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            make(folder / "set")
            rows.append(f"| {what} | {said(folder)} |")
    return HEAD + "\n".join(rows) + "\n"


def said(folder: Path) -> str:
    """The errors and warnings, or else the notes about the labels, without the folder's path."""
    notes: list[str] = []
    try:
        manifest = read_manifest(to_manifest(folder / "set", folder / "run-data", on_event=notes.append))
        findings = check_manifest(manifest, workers=1).findings
        found = [f"**{f.level}**: {f.text}" for f in findings if f.level != "note"]
        found = found or [f"**note**: {note}" for note in notes[2:] if "separate parts" in note or "patients" in note]
    except MedMaskRCNNError as error:
        first, *cases = error.reason.splitlines()
        found = [f"**error**: {cases[0].strip(' -') if cases else first}"]
    return "; ".join(found[:1]).replace(f"{folder}/", "").replace("|", "\\|")


def pictures(root: Path, mask: Callable[[int], Image.Image], *, names: str = "{0}", ending: str = "png") -> None:
    """Pictures of four cells each, with a mask each."""
    for number in range(N):
        name = names.format(number, number // 2)
        for sub in ("images", "masks"):
            (root / sub).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(30, 5, (64, 64)) + 100 * (cells(number) > 0)
        Image.fromarray(noise.astype(np.uint8)).save(root / "images" / f"{name}.png")
        mask(number).save(root / "masks" / f"{name}.{ending}")


def cells(number: int) -> np.ndarray:
    """Four discs, numbered from 1."""
    values, (y, x) = np.zeros((64, 64), np.uint8), np.mgrid[:64, :64]
    for n, (top, left, radius) in enumerate(((14, 14, 6), (14, 48, 7), (48, 14, 5), (46, 46, 8)), start=1):
        values[(y - top) ** 2 + (x - left - number % 3) ** 2 < radius**2] = n
    return values


def volumes(root: Path, values: Callable[[int], np.ndarray], *names: str, missing: tuple[int, ...] = ()) -> None:
    """Scans in nnU-Net's layout; those in ``missing`` have no image."""
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    for number in range(N):
        labels = values(number)
        image = np.random.default_rng(number).normal(size=labels.shape).astype(np.float32)
        if number not in missing:
            nib.save(nib.Nifti1Image(image.T, np.eye(4)), root / "imagesTr" / f"case_{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(labels.T, np.eye(4)), root / "labelsTr" / f"case_{number}.nii.gz")
    labels_of = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels_of}))


def ball(number: int) -> np.ndarray:
    """One object."""
    return ((Z - 18 - number) ** 2 + (Y - 16) ** 2 + (X - 16) ** 2 < 64).astype(np.uint8)


def rod(number: int, slices: slice) -> np.ndarray:
    """An object through all slices, labelled in some of them."""
    values = np.zeros(Z.shape, np.uint8)
    values[slices] = ((Y - 16) ** 2 + (X - 16) ** 2 < 50)[slices]
    return values


def jpeg(number: int) -> Image.Image:
    """Numbers after lossy compression, stored without loss."""
    stream = io.BytesIO()
    Image.fromarray(cells(number) * 50).save(stream, format="JPEG")
    return Image.open(stream)


def boxes(root: Path) -> None:
    """COCO without outlines."""
    (root / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / "images/a.png")
    image = {"id": 1, "file_name": "a.png", "height": 64, "width": 64}
    found = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [9 * n, 4, 8, 8], "segmentation": []} for n in (1, 2)]
    content = {"images": [image], "annotations": found, "categories": [{"id": 1, "name": "cell"}]}
    (root / "cells.json").write_text(json.dumps(content))


def colours(number: int) -> Image.Image:
    """A mask in colours."""
    table = np.array([[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200]], np.uint8)
    return Image.fromarray(table[cells(number)])


def annotated(root: Path) -> None:
    """A table that does not name a class that the labels hold."""
    volumes(root, ball, "liver", "spleen")
    rows = "\n".join(f"case_{number},{'spleen' if number == 2 else 'liver spleen'}" for number in range(N))
    (root / "cases.csv").write_text(f"case,annotated\n{rows}\n")


def leaking(root: Path) -> None:
    """A table with one patient in two splits."""
    volumes(root, ball, "liver")
    rows = "\n".join(f"case_{number},p{number // 2},{'test' if number < 3 else 'train'}" for number in range(N))
    (root / "cases.csv").write_text(f"case,patient,split\n{rows}\n")


SETS: dict[str, Callable[[Path], None]] = {
    "masks of 0 and 255 (or one bit) in which several objects lie": lambda root: pictures(
        root, lambda n: Image.fromarray((cells(n) > 0).astype(np.uint8) * 255)
    ),
    "masks in JPEG": lambda root: pictures(root, jpeg, ending="jpg"),
    "masks once stored as JPEG, or resized by interpolation": lambda root: pictures(root, jpeg),
    "masks in colours": lambda root: pictures(root, colours),
    "an image is missing, its label is there": lambda root: volumes(root, ball, "liver", missing=(3,)),
    "COCO with boxes only": boxes,
    "all labels are empty": lambda root: volumes(root, lambda n: ball(n) * 0, "liver"),
    "12 of 40 slices are labelled": lambda root: volumes(root, lambda n: rod(n, slice(14, 26)), "cord"),
    "every fifth slice is labelled": lambda root: volumes(root, lambda n: rod(n, slice(0, 40, 5)), "cord"),
    "slices of a patient are pictures by themselves": lambda root: pictures(
        root, lambda n: Image.fromarray(cells(n)), names="p{1}_slice_{0}"
    ),
    "the labels hold an organ that `cases.csv` does not name": annotated,
    "a patient in training and test": leaking,
}


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")

"""Labelled crops that were cut around their object, cut again: the object off centre, and slabs without any.

    python benchmarks/off_centre.py data/sarcoma/manifest.json cut --split test
    medmaskrcnn evaluate sarcoma-mr cut/off-centre/manifest.json
    medmaskrcnn evaluate sarcoma-mr cut/without/manifest.json

A network that has seen objects only in the middle of their crops may say "in the middle" to everything. Of each NIfTI
case two crops are made that begin, or end, ``--margin`` voxels from the object on every axis, so that it lies in one
corner; and the slabs beyond its first and last slice, along the last axis, of ``--thinnest`` slices or more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest

Cut = tuple[slice, ...]


def cuts(label: np.ndarray[Any, Any], margin: int, thinnest: int) -> Iterator[tuple[str, str, Cut]]:
    """Kind, name and voxels of every crop of a label map."""
    where = np.argwhere(label)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    yield "off-centre", "low", tuple(slice(max(0, int(a) - margin), None) for a in low)
    yield "off-centre", "high", tuple(slice(0, int(b) + margin) for b in high)
    before, after = slice(0, int(low[-1])), slice(int(high[-1]), label.shape[-1])
    for name, slab in (("before", before), ("after", after)):
        if slab.stop - slab.start >= thinnest:
            yield "without", name, (*(slice(None),) * (label.ndim - 1), slab)


def cut_case(manifest: Manifest, case: ManifestCase, out: Path, options: argparse.Namespace) -> list[tuple[str, Any]]:
    """Write the crops of one case; what to list in which manifest."""
    image, label = nibabel.load(manifest.path(str(case.image))), nibabel.load(manifest.path(str(case.label)))
    made = []
    for kind, name, voxels in cuts(np.asarray(label.dataobj) > 0, options.margin, options.thinnest):
        stem = f"{case.id}-{name}"
        (out / kind).mkdir(parents=True, exist_ok=True)
        nibabel.save(image.slicer[voxels], out / kind / f"{stem}.nii.gz")
        entry = {"id": stem, "patient": case.patient, "image": f"{stem}.nii.gz", "split": "test", "label": None}
        if kind == "off-centre":
            nibabel.save(label.slicer[voxels], out / kind / f"{stem}-label.nii.gz")
            instances = [i.model_dump(by_alias=True) for i in case.instances]
            entry |= {"label": f"{stem}-label.nii.gz", "instances": instances}
        made.append((kind, entry))
    return made


def main() -> None:
    """Cut every case of the split, and write a manifest for each kind of crop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--margin", type=int, default=3, help="voxels")
    parser.add_argument("--thinnest", type=int, default=8, help="slices")
    options = parser.parse_args()
    manifest = read_manifest(options.manifest)
    made = [
        entry
        for case in manifest.cases
        if case.split == options.split
        for entry in cut_case(manifest, case, options.out, options)
    ]
    for kind in sorted({kind for kind, _ in made}):
        cases = [entry for own, entry in made if own == kind]
        listed = Manifest.model_validate({**manifest.model_dump(by_alias=True, exclude={"cases"}), "cases": cases})
        file = options.out / kind / "manifest.json"
        file.write_text(listed.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        print(f"{len(cases)} crops: {file}")


if __name__ == "__main__":
    main()

"""Recognises labels of programs whose formats are not read here, to say which export of theirs is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmaskrcnn_datasets.source_files import is_leftover, read_json

_LOOKED_AT = 400  # files, at most
_JSON_READ = 20  # of them JSON


def foreign_labels(root: Path) -> str | None:
    """Which labels a file or folder holds that cannot be read, and what to do; ``None`` if none are recognised."""
    jsons = 0
    for file in _files(root):
        ending = file.suffix.lower()
        if ending == ".json" and jsons < _JSON_READ:
            jsons += 1
            found = _of_json(read_json(file))
        else:
            found = _of_file(file, ending)
        if found is not None:
            return f"{file} is {found}"
    return None


def _of_json(content: Any) -> str | None:
    if isinstance(content, list):
        content = content[0] if content and isinstance(content[0], dict) else None
    if not isinstance(content, dict):
        return None
    if "shapes" in content and ("imagePath" in content or "imageData" in content):
        return "an annotation of LabelMe. Convert its JSON to COCO with labelme2coco, or to label maps"
    regions = content.get("_via_img_metadata", content)
    first = next(iter(regions.values()), None) if isinstance(regions, dict) else None
    if "_via_img_metadata" in content or (isinstance(first, dict) and {"filename", "regions"} <= set(first)):
        return "a project of the VGG Image Annotator. Export its annotations in COCO format"
    if content.get("type") == "FeatureCollection" or {"geometry", "properties"} <= set(content):
        return "GeoJSON, as QuPath writes it. Export the objects as labelled images (one number for each object)"
    if {"annotations", "data"} <= set(content) or {"completions", "data"} <= set(content):
        return "an export of Label Studio. Export it as COCO, or brush labels as PNG"
    if {"objects", "size"} <= set(content):
        return "an annotation of Supervisely. Export it as COCO, or as masks"
    if {"images", "annotations"} <= set(content):
        return "like a COCO file, but names no categories. Export it with its categories"
    if {"images", "categories"} <= set(content):
        return "a COCO file without annotations. Export it with its annotations"
    return None


def _of_file(file: Path, ending: str) -> str | None:
    if ending == ".txt" and file.parent.name.lower() != "imagesets" and _is_yolo(file):
        return "a label file of YOLO. Export the data set as COCO with masks, or as label maps"
    if ending == ".xml":
        head = file.read_bytes()[:4096]
        if b"<annotation" in head and (b"<bndbox" in head or b"<object" in head):
            return (
                "a Pascal VOC annotation of boxes. Masks cannot be learnt from boxes: give SegmentationObject, or COCO"
            )
        if b"<annotations" in head:
            return "an export of CVAT. Export it as COCO 1.0, or as a segmentation mask"
        if b"<Annotations" in head or b"<Annotation " in head:
            return "an annotation of a slide viewer (ASAP, ImageScope). Export the objects as labelled images"
    if ending == ".csv":
        header = file.read_bytes()[:4096].partition(b"\n")[0]
        if b"region_shape_attributes" in header:
            return "an export of the VGG Image Annotator. Export its annotations in COCO format"
        if b"EncodedPixels" in header or b"rle" in header.lower():
            return "a table of run-length codes. Convert them to COCO, or to label maps"
    if file.name.endswith("_seg.npy"):
        return "a result of cellpose. Save its masks as PNG or TIFF (File > Save masks as PNG/tif)"
    if ending == ".roi" or file.name.lower().endswith("roiset.zip"):
        return "a region of ImageJ. Turn the regions into a label map (one number for each object) and save it as TIFF"
    if file.name.lower().endswith(".seg.nrrd"):
        return (
            "a segmentation of 3D Slicer. Put the scans into images/ and the segmentations into labels/, by equal names"
        )
    return None


def _is_yolo(file: Path) -> bool:
    """Lines of a class and at least four numbers between 0 and 1."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines[:50] if line.strip()]
    except (OSError, ValueError):
        return False
    return bool(rows) and all(
        len(row) >= 5 and row[0] == int(row[0]) >= 0 and all(-0.01 <= v <= 1.01 for v in row[1:]) for row in rows
    )


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    seen = 0
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_leftover(Path(name)))
        for name in sorted(files):
            if not is_leftover(Path(name)):
                yield Path(place) / name
                seen += 1
                if seen == _LOOKED_AT:
                    return

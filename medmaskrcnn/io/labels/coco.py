"""Reads COCO JSON as instances of one scan: our own ``coco.json``, or annotations of an image from elsewhere.

Masks are run-length codes (text or numbers) or polygons, whose coordinates refer to pixel edges: pixel ``i`` covers
``[i, i + 1)``. Annotations of one ``instance_id`` in several slices are one object.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import Allowance, check_memory
from medmaskrcnn.io.labels.contours import fill_polygon
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray, Mask
from medmaskrcnn.structures.rle import rle_decode, rle_from_string

MAX_BYTES = 1 << 30
_PARSED = 8  # bytes of memory for each of the text, about


def read_coco(path: Path, grid: Grid, *, picture: str | None = None) -> Instances:
    """Read the annotations of one scan.

    Args:
        path: The JSON file.
        grid: The scan's grid; slices are along its D axis.
        picture: Name of the image, without folder and extension; selects it in a file about several images.

    Returns:
        One instance per ``instance_id``, or per annotation without one; the score is 1 if none is given.

    Raises:
        ReadError: if the file is not COCO JSON, its images do not fit the grid, or a mask is damaged.
    """
    document = read_coco_document(path)
    try:
        slices = _slices(path, document, grid, picture)
        names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
        objects: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for number, annotation in enumerate(document["annotations"]):
            if annotation["image_id"] in slices:
                own = annotation.get("instance_id")
                objects[("instance", int(own)) if own is not None else ("annotation", number)].append(annotation)
        return _gathered(list(objects.values()), slices, names, grid, Allowance(path, "its masks"))
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error


def read_coco_document(path: Path) -> dict[str, Any]:
    """The content of a COCO file with images, categories and annotations; the last one read is kept.

    Raises:
        ReadError: if it cannot be read, or is something else.
    """
    try:
        state = path.stat()
        if state.st_size > MAX_BYTES:
            raise ReadError(f"{path} is larger than the {MAX_BYTES} bytes that are read")
        check_memory(path, _PARSED * state.st_size, "its text")
        return _parsed(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=1)
def _parsed(path: Path, size: int, changed: int) -> dict[str, Any]:
    """Parsed once for all the images that a file is about."""
    document = json.loads(path.read_bytes())
    if isinstance(document, list):
        raise ValueError("a list of results without images and categories; save them with those of the data set")
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= document.keys():
        raise ValueError("it lacks images, categories or annotations")
    return document


def coco_class_names(path: Path) -> tuple[str, ...]:
    """Names of a file's categories, in its order.

    Raises:
        ReadError: as :func:`read_coco_document`.
    """
    try:
        return tuple(dict.fromkeys(str(one["name"]) for one in read_coco_document(path)["categories"]))
    except (KeyError, TypeError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error


def coco_pictures(path: Path) -> list[str]:
    """Names of the images that a file is about, without folder and extension.

    Raises:
        ReadError: as :func:`read_coco_document`.
    """
    try:
        return [Path(str(one["file_name"])).stem for one in read_coco_document(path)["images"]]
    except (KeyError, TypeError) as error:
        raise ReadError(f"{path} is no COCO JSON or is damaged: {type(error).__name__}: {error}") from error


def stated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image in pixels; ``None`` if the file does not tell them: 0 and null mean that too.

    Raises:
        ValueError, TypeError: if they are no numbers.
    """
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def _slices(path: Path, document: dict[str, Any], grid: Grid, picture: str | None) -> dict[Any, int]:
    """Slice of the scan by image id."""
    images = list(document["images"])
    if len(images) != grid.shape[0]:
        images = [image for image in images if Path(str(image["file_name"])).stem == picture]
    sizes = {stated_size(image) for image in images} - {None}  # where none is stated, the scan's is meant
    if len(images) != grid.shape[0] or not sizes <= {grid.shape[1:]}:
        depth, height, width = grid.shape
        raise ReadError(
            f"{path} must hold {depth} images of {height} x {width} pixels for this scan. It has "
            f"{len(document['images'])}, of which {len(images)} fit in number or name; give the scan that it belongs to"
        )
    order = sorted(images, key=lambda image: int(image.get("slice", image["id"])))
    return {image["id"]: d for d, image in enumerate(order)}


def _gathered(
    objects: list[list[dict[str, Any]]],
    slices: dict[Any, int],
    names: dict[int, str],
    grid: Grid,
    memory: Allowance,
) -> Instances:
    class_names = tuple(dict.fromkeys(names.values()))
    masks, labels, scores = [], [], []
    for parts in objects:
        places = [slices[part["image_id"]] for part in parts]
        low, high = min(places), max(places) + 1
        whole = np.zeros((high - low, *grid.shape[1:]), np.bool_)
        for d, part in zip(places, parts, strict=True):
            whole[d - low] |= decode_mask(part["segmentation"], (grid.shape[1], grid.shape[2]))
        tight = Mask((low, 0, 0), whole).tight()
        memory.take(tight.array.nbytes)
        masks.append(tight)
        labels.append(class_names.index(names[int(parts[0]["category_id"])]))
        scores.append(float(parts[0].get("score", 1.0)))
    return Instances.from_masks(grid, class_names, labels, masks, scores=scores)


def decode_mask(segmentation: Any, shape: tuple[int, int]) -> BoolArray:
    """The mask ``(rows, columns)`` of an annotation: a run-length code, packed or not, or polygons.

    Raises:
        ValueError, KeyError, TypeError: if it is damaged or of another size.
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if list(segmentation["size"]) != list(shape):
            raise ValueError(f"a mask of size {segmentation['size']} in an image of {list(shape)}")
        return rle_decode(rle_from_string(counts) if isinstance(counts, str) else [int(n) for n in counts], *shape)
    mask = np.zeros(shape, np.bool_)
    for polygon in segmentation:
        corners = np.reshape(np.asarray(polygon, np.float64), (-1, 2))[:, ::-1] - 0.5
        if not np.isfinite(corners).all():
            raise ValueError("a polygon's corners must be finite numbers")
        mask |= fill_polygon(corners, shape)
    return mask

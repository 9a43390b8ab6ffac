"""Reads the file of a label map, whose voxels are numbers of objects or classes, as a volume."""

from __future__ import annotations

import os
from pathlib import Path

from medmaskrcnn.io.formats import sniff
from medmaskrcnn.io.pictures import read_label_picture
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import Volume


def read_label_volume(path: Path) -> Volume:
    """Read a label map; pictures as :func:`~medmaskrcnn.io.pictures.read_label_picture`, all else as a scan.

    Raises:
        ReadError: if it cannot be read, or is a picture whose pixels are no labels.
    """
    what = sniff(path) if os.path.isfile(path) else None  # noqa: PTH113 - also of a name that no file can have
    return read_label_picture(path, what) if what in ("PNG", "TIFF", "JPEG") else read_volume(path)

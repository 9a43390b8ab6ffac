"""pydicom datasets in memory become a Volume by the same way as files: they are written to a folder and read from it.

So no rule of DICOM stands twice, and an export that needs the headers of the series (DICOM SEG, RTSTRUCT, SR) finds
them. The folder lives as long as the Volume.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.options import ReadingOptions
from medmaskrcnn.io.read import choose
from medmaskrcnn.structures.volume import Volume


def volume_of_datasets(datasets: Sequence[Dataset], *, series: str | None, options: ReadingOptions) -> Volume:
    """Read the datasets of a series, in any order; they are not changed.

    Args:
        datasets: One for each file of the series, or one of many frames.
        series: As for :func:`medmaskrcnn.read_volume`, where they are of several series.
        options: How to read.

    Raises:
        ReadError: if a dataset names no transfer syntax, or they form no volume.
    """
    folder = tempfile.TemporaryDirectory(prefix="medmaskrcnn-", ignore_cleanup_errors=True)
    for number, dataset in enumerate(datasets):
        _write(dataset, Path(folder.name) / f"{number:06d}.dcm", number)
    place = Path(folder.name)
    volume = choose(place, find_scans(place), series).read(options)
    weakref.finalize(volume, lambda _: None, folder)
    return volume


def _write(dataset: Dataset, path: Path, number: int) -> None:
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        raise ReadError(
            f"dataset {number} names no transfer syntax (file_meta.TransferSyntaxUID), so its pixels cannot be decoded"
        )
    own = Dataset(dataset)
    own.file_meta = FileMetaDataset(meta)
    own.save_as(path, enforce_file_format=True)

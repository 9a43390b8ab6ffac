"""Checks of the output options that are made before segmentation starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.dicom_files import DICOM_FORMATS
from medmaskrcnn.export.source_series import read_source
from medmaskrcnn.settings import OutputOptions
from medmaskrcnn.structures.volume import Volume


def check_output_folder(folder: Path) -> None:
    """Make sure that ``folder`` can be created and written to; leaves nothing behind.

    Raises:
        OutputError: if it is a file, lies under one, or may not be written to.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise OutputError(f"cannot write results to {folder}: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing, prefix=".medmaskrcnn-"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write results to {folder}: {existing}: {reason}") from error


def refuse_unwritable(volume: Volume, output: OutputOptions) -> None:
    """Refuse a scan for which no DICOM object can be written.

    Raises:
        OutputError: if a DICOM format was requested and the scan is not a DICOM series with geometry.
    """
    if dicom := [name for name in output.formats if name in DICOM_FORMATS]:
        read_source(volume, f"a DICOM {dicom[0].upper()}")

"""Checks of the output options that are made before segmentation starts."""

from __future__ import annotations

import tempfile
from dataclasses import replace
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


def check_formats(volume: Volume, output: OutputOptions) -> Volume:
    """Refuse a scan of which nothing that was asked for can be written, before it is segmented.

    Returns:
        The scan; its notes tell which attributes of its headers DICOM objects will lack.

    Raises:
        OutputError: if only DICOM objects were requested, and the scan is not a DICOM series with geometry.
    """
    dicom = [name for name in output.formats if name in DICOM_FORMATS]
    if not dicom:
        return volume
    try:
        source = read_source(volume, f"a DICOM {dicom[0].upper()}")
    except OutputError:
        if len(dicom) == len(output.formats):
            raise
        return volume  # the other formats are written, and an error names these
    notes = (*volume.provenance.notes, *source.notes)
    return replace(volume, provenance=replace(volume.provenance, notes=notes)) if source.notes else volume

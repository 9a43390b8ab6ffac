"""One case from scan to folder, in three steps that may overlap with those of other cases: read, segment, write.

``medmaskrcnn segment`` takes the steps one after the other; a worker of ``medmaskrcnn batch`` in three threads.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import medmaskrcnn
from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.dicom_files import DICOM_FORMATS
from medmaskrcnn.export.source_series import read_source
from medmaskrcnn.export.write import FORMATS
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

if TYPE_CHECKING:
    from medmaskrcnn.hub.loaded_model import LoadedModel
    from medmaskrcnn.inference.detect import StageProgress


@dataclass(frozen=True)
class CaseOptions:
    """How to segment and what to write; ``None`` leaves it to the model.

    Attributes:
        formats: What to write beside ``instances.npz`` and ``run.json``.
        score: Score threshold 0..1.
        classes: Classes to report.
        resample_irregular: Interpolate even slices where a series has irregular ones.
        allow_out_of_domain: Run the model on scans that it was not made for.
        label_map_seg: DICOM SEG as LABELMAP where no two instances overlap.
        deidentify: Nothing that names the patient in any file.
        paths_in_run: Let ``run.json`` name the scan's files and the machine.
    """

    formats: tuple[str, ...] = FORMATS
    score: float | None = None
    classes: tuple[str, ...] | None = None
    resample_irregular: bool = False
    allow_out_of_domain: bool = False
    label_map_seg: bool = False
    deidentify: bool = False
    paths_in_run: bool = True


def check_output_folder(folder: Path) -> None:
    """Make sure, before any work is done, that ``folder`` can be made and written to; leaves nothing behind.

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


def refuse_unwritable(volume: Volume, options: CaseOptions) -> None:
    """Refuse now, rather than after all the work, a scan that a DICOM object cannot be written about.

    Raises:
        OutputError: if one was asked for and the scan is no DICOM series with geometry.
    """
    if dicom := [name for name in options.formats if name in DICOM_FORMATS]:
        read_source(volume, f"a DICOM {dicom[0].upper()}")


def segment_volume(
    volume: Volume, model: LoadedModel, options: CaseOptions, progress: StageProgress | None = None
) -> CaseResult:
    """The second step; errors as :func:`medmaskrcnn.segment`."""
    return medmaskrcnn.segment(
        volume,
        model,
        score=options.score,
        classes=options.classes,
        allow_out_of_domain=options.allow_out_of_domain,
        progress=progress,
    )


def write_case(result: CaseResult, volume: Volume, folder: Path, options: CaseOptions) -> dict[str, Path]:
    """The third step; errors as :func:`medmaskrcnn.write_result`."""
    return medmaskrcnn.write_result(
        result,
        volume,
        folder,
        formats=options.formats,
        label_map_seg=options.label_map_seg,
        deidentify=options.deidentify,
        paths_in_run=options.paths_in_run,
    )

"""A copy of DICOM images without what identifies the patient: what ``convert SERIES FOLDER --deidentify`` makes."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset

from medmaskrcnn.cli.console import ProgressCall
from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.export.deidentify import deidentify
from medmaskrcnn.io.dicom.deflated import check_deflated
from medmaskrcnn.io.dicom.sop_classes import SECONDARY_CAPTURE_CLASSES, non_image_kind
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.system.files import replacing_folder


def deidentify_files(source: Path, folder: Path, progress: ProgressCall) -> tuple[int, list[str]]:
    """De-identify every DICOM image below a path into a new folder; names of files tell nothing.

    Left out are objects that are no images, and pictures that are likely to show names: screenshots, scanned paper, and
    whatever says of itself that text is burned in (0028,0301).

    Args:
        source: A file or folder.
        folder: Made by this; must not exist.
        progress: Called with ``"de-identify"`` and the share that is done.

    Returns:
        How many images were written, and what was left out, one sentence for each reason.

    Raises:
        ReadError: if there is no DICOM image.
        OutputError: if the folder exists or cannot be written; then nothing is left of it.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists. Give the name of a folder that does not, so that nothing is mixed up")
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    dicom = [file for file in files if sniff(file) == "DICOM"]
    left_out: dict[str, int] = {}
    written = 0
    with replacing_folder(folder) as staging:
        for done, file in enumerate(dicom, start=1):
            check_deflated(file)
            dataset = dcmread(file, force=True)
            reason = _unfit(dataset)
            if reason is None:
                deidentify(dataset)
                written += 1
                dataset.save_as(staging / f"IM{written:05d}.dcm")
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
            progress("de-identify", done / len(dicom))
        if not written:
            raise ReadError(f"{source} holds no DICOM image that could be de-identified")
    return written, [f"{n} left out: {reason}" for reason, n in sorted(left_out.items())]


def _unfit(dataset: FileDataset) -> str | None:
    """Why an object is not copied; ``None`` if it is."""
    sop_class = str(dataset.get("SOPClassUID") or "")
    if non_image_kind(sop_class, str(dataset.get("Modality") or "")) or "PixelData" not in dataset:
        return "no image (contours, segmentations and reports are not de-identified)"
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        return "a picture that has text burned in"
    if sop_class in SECONDARY_CAPTURE_CLASSES:
        return "a screenshot or scanned page, which may show names"
    return None

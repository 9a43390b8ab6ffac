"""Where the result of a scan goes: a folder of its own beside the scan, never one that holds another scan's result."""

from __future__ import annotations

from pathlib import Path

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.occupied import refuse_occupied
from medmaskrcnn.export.write import FILE_NAMES
from medmaskrcnn.structures.volume import Volume

_ENDING = "-medmaskrcnn"
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
_MOST = 1000


def suggested_folder(volume: Volume) -> Path | None:
    """A folder beside the scan that no other scan's result lies in; ``None`` for a scan that is in no file.

    ``study/ct/*.dcm`` gives ``study/ct-medmaskrcnn``, ``brain.nii.gz`` gives ``brain-medmaskrcnn`` beside it; with a
    number where a result of another scan is there already.
    """
    files = [Path(name) for name in volume.provenance.files]
    if not files:
        return None
    place = files[0].parent if len(files) > 1 else files[0]
    ending = next((end for end in _SUFFIXES if place.name.lower().endswith(end)), "")
    name = place.name[: len(place.name) - len(ending)] + _ENDING
    numbered = (place.with_name(name if n == 1 else f"{name}-{n}") for n in range(1, _MOST))
    return next((folder for folder in numbered if not other_scan_in(folder, volume)), None)


def other_scan_in(folder: Path, volume: Volume) -> bool:
    """Whether files that saving would replace belong to another scan, or were not written by this program."""
    try:
        refuse_occupied(folder, FILE_NAMES.values(), volume)
    except OutputError:
        return True
    except OSError:  # a folder that may not be entered: writing will tell
        return False
    return False

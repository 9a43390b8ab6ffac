"""Remove a received scan once nobody needs it: its result is written, was read back, and is about all of its files.

A scan that was refused or failed, is queued, or grew while it was segmented stays. So does whatever lies in its folder
and is not known to the ledger.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydicom import dcmread

from medmaskrcnn.batch_runs.find import fingerprint_of
from medmaskrcnn.batch_runs.ledger import Entry
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.export.write import FILE_NAMES
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.system.exceptions import words_of
from medmaskrcnn.system.paths import path_below

logger = logging.getLogger(__name__)


def entries_of(run: BatchRun, folder: Path) -> list[Entry]:
    """The ledger's entries of series that were read from files in a folder."""
    place = folder.absolute()
    found = run.ledger.entries_of_files(place)
    return [one for one in found if any(Path(file).parent == place for file in one.found.files)]


def discard_done(run: BatchRun, folder: Path) -> bool:
    """Remove the files of a received series, and its folders if they are then empty.

    Args:
        run: The run that segmented it.
        folder: The series' folder.

    Returns:
        Whether all of it was removed. Nothing is removed unless every series read from the folder is done, its result
        can be read, and the folder holds those very files, unchanged, and no other.
    """
    entries = entries_of(run, folder)
    known = {Path(file) for entry in entries for file in entry.found.files}
    if not known or known != set(folder.absolute().iterdir()):
        return False
    if not all(entry.status == "done" and _unchanged(entry) and _can_be_read(run, entry) for entry in entries):
        return False
    try:
        for file in known:
            file.unlink()
        folder.rmdir()
        folder.parent.rmdir()  # the study, unless it has more series
    except OSError as error:
        logger.info("a scan was not discarded completely: %s", error.strerror)
    return not folder.exists()


def _unchanged(entry: Entry) -> bool:
    return fingerprint_of([Path(file) for file in entry.found.files]) == entry.found.fingerprint


def _can_be_read(run: BatchRun, entry: Entry) -> bool:
    """Whether the result is on the disk and whole."""
    place = path_below(run.out, entry.folder)
    try:
        load_case(place / FILE_NAMES["instances"])
        with suppress_pydicom_warnings():
            for file in place.glob("*.dcm"):
                dcmread(file)
    except Exception as error:  # whatever is wrong with it: the scan is needed
        logger.error("the result in %s cannot be read (%s); its scan is kept", entry.folder, words_of(error))
        return False
    return True

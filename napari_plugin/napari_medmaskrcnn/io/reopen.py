"""Opens a saved result, or labels of another program, together with the scan, to continue a review."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.formats import sniff
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.new_review import labels_as_result
from napari_medmaskrcnn.core.save_folder import other_scan_in
from napari_medmaskrcnn.io.label_reader import labels_with_scan
from napari_medmaskrcnn.io.reader import RUN_FILE, scan_of_result


def reopen(path: Path, known: Sequence[Volume]) -> tuple[Volume, CaseResult]:
    """The result in a file and its scan.

    Args:
        path: ``instances.npz`` or its folder, a SEG, an RTSTRUCT, or a label map.
        known: Scans that are open, the most likely first.

    Raises:
        ReadError: if the file is damaged or of an unsupported kind, or its scan is not found.
    """
    file = path / "instances.npz" if path.is_dir() else path
    if not file.is_file():
        raise ReadError(f"there is no file {file}")
    if zipfile.is_zipfile(file):
        result = load_case(file)
        same_grid = [volume for volume in known if volume.grid == result.candidates.grid]
        fitting = sorted(same_grid, key=lambda volume: other_scan_in(file.parent, volume))
        series = result.record.source.get("series_uid")
        scan = next((one for one in fitting if one.provenance.series_uid in (series, None) or series is None), None)
        scan = scan or scan_of_result(result, file.with_name(RUN_FILE))
        if scan is None:
            raise ReadError(f"the scan that {file.name} was made from is neither open nor where it was. Open it first")
        return scan, result
    if sniff(file) == "DICOM":
        labels, scan = labels_with_scan(file, known)
        return scan, labels
    if not known:
        raise ReadError(f"{file.name} is a label map, which does not tell its scan. Open the scan first")
    return known[0], labels_as_result(read_labels(file, known[0]), known[0], name=file.name)

"""Truth masks of real series, written as RTSTRUCT and SEG, judged by the standard's checker, and read back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_objects import write_rtstruct, write_seg, write_sr

from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances

SERIES = [f"{patient}/{kind}" for patient in ("STS_001", "STS_003", "STS_004") for kind in ("CT", "MR_T1", "PET")]


def dice(a: Instances, b: Instances) -> float:
    return 2 * a.masks[0].overlap(b.masks[0]) / (a.masks[0].n_voxels + b.masks[0].n_voxels)


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("series", SERIES)
def test_truth_comes_back(
    medmaskrcnn_data: Path,
    put_masks: Callable[..., CaseResult],
    errors_of: Callable[[Path], list[str]],
    series: str,
    tmp_path: Path,
) -> None:
    folder = medmaskrcnn_data / "dicom"
    scan = read_volume(folder / series / "image")
    truth = np.asarray(nib.load(folder / "truth" / f"{series.replace('/', '_')}_mask.nii.gz").dataobj).T > 0
    result = put_masks(scan, {"gross tumour volume": [truth]})
    writers: dict[str, Any] = {"rtstruct": write_rtstruct, "seg": write_seg, "sr": write_sr}
    for name, write in writers.items():
        stream = io.BytesIO()
        write(result, scan, stream)
        (tmp_path / f"{name}.dcm").write_bytes(stream.getvalue())
        assert errors_of(tmp_path / f"{name}.dcm") == [], name
    seg, contours = (read_labels(tmp_path / f"{name}.dcm", scan) for name in ("seg", "rtstruct"))
    assert seg.class_names == contours.class_names == ("gross tumour volume",)
    assert dice(seg, result.instances) == 1.0
    assert dice(contours, result.instances) >= 0.99

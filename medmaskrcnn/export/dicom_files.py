"""One door to the DICOM objects. Behind it waits highdicom, whose import takes a second that most runs need not pay."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from medmaskrcnn.export.dicom_object import AlgorithmType, write_dataset
from medmaskrcnn.export.source_series import SourceSeries, suppress_pydicom_warnings
from medmaskrcnn.structures.case_result import CaseResult

DICOM_FORMATS = ("seg", "rtstruct", "sr")


def write_dicom_object(
    kind: str,
    result: CaseResult,
    source: SourceSeries,
    path: Path,
    *,
    label_map: bool = False,
    algorithm: AlgorithmType = "AUTOMATIC",
) -> None:
    """Write one DICOM object about a result.

    Args:
        kind: One of :data:`DICOM_FORMATS`.
        result: The result.
        source: Headers of its scan.
        path: The file.
        label_map: Let the SEG, and what refers to it, be a LABELMAP where nothing overlaps.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.
    """
    module = import_module(f"medmaskrcnn.export.{_MODULES[kind]}")
    encoding = {} if kind == "rtstruct" else {"encoding": "auto" if label_map else "binary"}
    with suppress_pydicom_warnings():
        dataset = getattr(module, f"make_{kind}")(result, source, algorithm=algorithm, **encoding)
        with path.open("wb") as stream:
            write_dataset(dataset, stream)


_MODULES = {"seg": "dicom_seg", "rtstruct": "rtstruct", "sr": "sr"}

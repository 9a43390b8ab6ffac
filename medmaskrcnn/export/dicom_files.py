"""Entry point for writing DICOM objects; highdicom takes a second to import and is imported only when needed."""

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
    """Write a result as one DICOM object.

    Args:
        kind: One of :data:`DICOM_FORMATS`.
        result: The result.
        source: Headers of its scan.
        path: The file.
        label_map: Write the SEG, and what refers to it, as a LABELMAP where no instances overlap.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.
    """
    module = import_module(f"medmaskrcnn.export.{_MODULES[kind]}")
    encoding = {} if kind == "rtstruct" else {"encoding": "auto" if label_map else "binary"}
    with suppress_pydicom_warnings():
        dataset = getattr(module, f"make_{kind}")(result, source, algorithm=algorithm, **encoding)
        with path.open("wb") as stream:
            write_dataset(dataset, stream)


_MODULES = {"seg": "dicom_seg", "rtstruct": "rtstruct", "sr": "sr"}

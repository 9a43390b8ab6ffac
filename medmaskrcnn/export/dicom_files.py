"""Entry point for writing DICOM objects; highdicom takes a second to import and is imported only when needed."""

from __future__ import annotations

import traceback
from importlib import import_module
from pathlib import Path

from medmaskrcnn.errors import MedMaskRCNNError, OutputError, Remedy
from medmaskrcnn.export.dicom_object import AlgorithmType, write_dataset
from medmaskrcnn.export.source_series import SourceSeries, suppress_pydicom_warnings
from medmaskrcnn.settings import OutputOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.system.files import open_private

DICOM_FORMATS = ("seg", "rtstruct", "sr")


def holds_identity(output: OutputOptions) -> bool:
    """Whether what is written tells who the patient is: DICOM objects carry the identity of their scan."""
    return not output.deidentify and any(name in DICOM_FORMATS for name in output.formats)


def write_dicom_object(
    kind: str,
    result: CaseResult,
    source: SourceSeries,
    path: Path,
    *,
    label_map: bool = False,
    algorithm: AlgorithmType = "AUTOMATIC",
) -> None:
    """Write a result as one DICOM object; its owner alone may read it unless it is de-identified.

    Args:
        kind: One of :data:`DICOM_FORMATS`.
        result: The result.
        source: Headers of its scan.
        path: The file.
        label_map: Write the SEG, and what refers to it, as a LABELMAP where no instances overlap.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.

    Raises:
        OutputError: if no such object can be made; the message quotes nothing of the scan's header.
    """
    module = import_module(f"medmaskrcnn.export.{_MODULES[kind]}")
    encoding = {} if kind == "rtstruct" else {"encoding": "auto" if label_map else "binary"}
    try:
        with suppress_pydicom_warnings():
            dataset = getattr(module, f"make_{kind}")(result, source, algorithm=algorithm, **encoding)
            is_anonymous = dataset.get("PatientIdentityRemoved") == "YES"
            with path.open("wb") if is_anonymous else open_private(path) as stream:
                write_dataset(dataset, stream)
    except (MedMaskRCNNError, OSError, MemoryError):
        raise
    except Exception as error:
        # The texts of pydicom's and highdicom's exceptions quote values, so neither they nor the chain are passed on.
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}"
        raise OutputError(f"a DICOM {kind.upper()} cannot be made of this scan ({place})", Remedy.REPORT) from None


_MODULES = {"seg": "dicom_seg", "rtstruct": "rtstruct", "sr": "sr"}

"""SEG, RTSTRUCT and SR of a result in a stream, straight from the functions that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from medmaskrcnn.export.dicom_object import write_dataset
from medmaskrcnn.export.dicom_seg import make_seg
from medmaskrcnn.export.rtstruct import make_rtstruct
from medmaskrcnn.export.source_series import read_source, suppress_pydicom_warnings
from medmaskrcnn.export.sr import make_sr
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume


def _writer(make: Callable[..., Any], kind: str) -> Callable[..., None]:
    def write(result: CaseResult, volume: Volume, stream: IO[bytes], **options: Any) -> None:
        source = read_source(volume, f"a DICOM {kind}")
        with suppress_pydicom_warnings():
            write_dataset(make(result, source, **options), stream)

    return write


write_seg = _writer(make_seg, "SEG")
write_rtstruct = _writer(make_rtstruct, "RTSTRUCT")
write_sr = _writer(make_sr, "SR")

"""``instances.csv``: one row per instance, for spreadsheets; see :mod:`medmaskrcnn.structures.result_table`."""

from __future__ import annotations

from typing import IO

import numpy as np

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.result_table import Cell, columns, rows
from medmaskrcnn.system.tables import TableWriter

_DIGITS = 7  # more than the precision of a float32 score or a scan's geometry


def write_table(result: CaseResult, stream: IO[str]) -> None:
    """Write the result's instances as CSV, a header line first; a value that does not exist is left empty.

    Args:
        result: The result.
        stream: Text stream opened with ``newline=""``.
    """
    writer = TableWriter(stream)
    writer.writerow(columns(result.candidates.grid.spacing_known))
    writer.writerows([_text(cell) for cell in row] for row in rows(result))


def _text(value: Cell) -> str:
    if isinstance(value, (int, str)):
        return str(value)
    if value is None or not np.isfinite(value):
        return ""
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, unique=True, trim="-")

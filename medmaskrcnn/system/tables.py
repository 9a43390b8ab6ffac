"""CSV tables whose cells no spreadsheet runs and no terminal obeys: names in them may come from any file.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is a formula for a spreadsheet, and formulas start programs and
send data away (CWE-1236); it gets an apostrophe in front, as spreadsheets themselves mark text. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: the same in full width
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def harmless(cell: object) -> object:
    """A cell of a table: text without control characters and formulas; everything else as it is."""
    if not isinstance(cell, str):
        return cell
    text = "".join(c if c.isprintable() else " " if c in "\r\n\t" else "\N{REPLACEMENT CHARACTER}" for c in cell)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


class TableWriter:
    """Writes rows of harmless cells, each ended by one line feed.

    Args:
        stream: Text stream opened with ``newline=""``.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")

    def writerow(self, row: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow([harmless(cell) for cell in row])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)

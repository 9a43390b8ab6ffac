"""Results, scans and model cards as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medmaskrcnn.cli.console import OUT, echo, plain
from medmaskrcnn.io.scan_info import ScanInfo
from medmaskrcnn.report.units import length_text, volume_text
from medmaskrcnn.structures.case_result import CaseResult, Measurement

WIDTH_OF_FILES = 200
"""Columns a table may take where there is no terminal whose width it must fit."""


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """A table on stdout; the columns named in ``numbers`` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    echo(title)
    (OUT if OUT.is_terminal else Console(width=WIDTH_OF_FILES)).print(table)


def print_instances(title: str, result: CaseResult) -> None:
    """The instances of a result: class, score, volume and diameters, one row each."""
    found, kept = result.instances, result.kept
    if result.record.out_of_domain:
        title += " [OUT OF DOMAIN: made by a model that does not know such scans]"
    if not kept:
        echo(f"{title}\n  nothing found with a score of {result.score_threshold:g} or more")
        return
    header = ["id", "class", "score", "volume", "longest axial", "perpendicular"]
    rows = [
        [str(n + 1), found.class_names[found.labels[n]], f"{found.scores[n]:.2f}", *_sizes(result.measurements[i])]
        for n, i in enumerate(kept)
    ]
    print_table(title, header, rows, numbers=("id", "score", "volume", "longest axial", "perpendicular"))


def _sizes(measurement: Measurement) -> tuple[str, str, str]:
    unit = measurement.unit
    return (
        volume_text(measurement.volume_unit3, unit),
        length_text(measurement.longest_axial_diameter, unit),
        length_text(measurement.perpendicular_diameter, unit),
    )


def print_scans(folder: Path, scans: Sequence[ScanInfo], numbers: Sequence[int | None]) -> None:
    """What ``info`` tells of scans: one row each, then where each is, why some cannot be segmented, and notes.

    ``numbers`` are what ``--series`` calls them, ``None`` for what it does not count.
    """
    header = ["", "what", "slices x rows x columns", "voxel mm", "axes", "files", "segmentable"]
    rows = [
        [
            str(number or "-"),
            scan.kind,
            _extents(scan.shape),
            " x ".join(f"{mm:.3g}" for mm in scan.spacing_mm) if scan.spacing_mm else "unknown" if scan.shape else "",
            scan.orientation or "",
            str(scan.files),
            "yes" if scan.segmentable else "no",
        ]
        for number, scan in zip(numbers, scans, strict=True)
    ]
    print_table(str(folder), header, rows, numbers=("", "files"))
    for number, scan in zip(numbers, scans, strict=True):
        path = Path(scan.path)
        shown = path.relative_to(folder) if path.is_relative_to(folder) and path != folder else path
        echo(f"{number or '-':>3}  {shown}")
        if scan.series_uid:
            echo(f"     series {scan.series_uid}{f' ({scan.description})' if scan.description else ''}")
        if scan.reason:
            echo(f"     cannot be segmented: {scan.reason}")
        for note in scan.notes:
            echo(f"     note: {note}")


def _extents(shape: tuple[int, int, int, int] | None) -> str:
    if shape is None:
        return ""
    channels = f" x {shape[0]} channels" if shape[0] > 1 else ""
    return " x ".join(str(n) for n in shape[1:]) + channels

"""What the check before training found, as tables for people."""

from __future__ import annotations

from medmaskrcnn.cli.console import echo, print_status
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.data.check import ClassRow, ManifestReport

_SHOWN = 20  # warnings and notes; errors are all shown


def print_report(report: ManifestReport) -> None:
    """Classes and splits on stdout, findings on stderr (every error, the first warnings and notes)."""
    manifest = report.manifest
    title = f"{manifest.name}: {len(manifest.cases)} cases, {len(report.case_fingerprints)} of them readable"
    class_rows = report.class_rows()
    partly = any(row.annotated is not None for row in class_rows)
    numbers = ("objects", "cases", *(["annotated in"] if partly else []), "smallest", "median", "largest")
    rows = [
        [row.class_name, str(row.objects), str(row.cases), *([str(row.annotated)] if partly else []), *_sizes(row)]
        for row in class_rows
    ]
    print_table(title, ["class", *numbers], rows, numbers=numbers)
    header = ["split", "cases", "patients", "objects", "empty cases"]
    print_table(
        "Splits",
        header,
        [[r.split, str(r.cases), str(r.patients), str(r.objects), str(r.empty)] for r in report.split_rows()],
        numbers=header[1:],
    )
    sets = report.set_rows()
    if sets:
        header = ["data set", "cases for training", "samples"]
        shares = [[row.data_set, str(row.cases), f"{row.share:.0%}"] for row in sets]
        print_table("Data sets", header, shares, numbers=header[1:])
    _tell_findings(report)


def _tell_findings(report: ManifestReport) -> None:
    milder = [finding for finding in report.findings if finding.level != "error"]
    for finding in (*report.errors, *milder[:_SHOWN]):
        print_status(finding.level, finding.text)
    if len(milder) > _SHOWN:
        print_status("note", f"{len(milder) - _SHOWN} further warnings and notes are not shown")
    if not report.findings:
        echo("Nothing was found that would spoil a training.")


def _sizes(row: ClassRow) -> tuple[str, ...]:
    """Longest sides of the objects' boxes: smallest, median, largest."""
    return tuple(f"{size:.3g} {row.unit}" for size in row.sizes) if row.sizes else ("", "", "")

"""``medmaskrcnn followup``: results of one patient at several times, and what has changed in between."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from medmaskrcnn.batch_runs.ledger import LEDGER_NAME
from medmaskrcnn.cli.console import echo, print_json, print_status
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.options import LogOption, RenameOption, assignments
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.errors import ReadError
from medmaskrcnn.evaluation.followup.changes import changes_document, write_changes
from medmaskrcnn.evaluation.followup.compare import Examination, compare, labels_of
from medmaskrcnn.evaluation.followup.tracks import TOLERANCE_MM
from medmaskrcnn.io.discover import scans_among
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.report.units import length_text, volume_text
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume

EXAMPLES = (
    "medmaskrcnn followup jan/ apr/ jul/ -o change",
    "medmaskrcnn followup jan/ apr/ -o change --label 2024-01 --label 2024-04 --classes tumour",
)
_NEEDED = "instances.npz"


def followup_command(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Result folders, in order of time.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for changes.csv and changes.json.")],
    scans: Annotated[
        list[Path] | None,
        typer.Option("--scan", metavar="SCAN", help="The scan of each result, in order.", show_default="as segmented"),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What each is called.", show_default="t1, t2, ...")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Follow these classes alone.", show_default="all")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, metavar="MM", help="How far the centre of a small lesion may have moved.")
    ] = TOLERANCE_MM,
    always_register: Annotated[
        bool, typer.Option("--always-register", help="Register scans of one frame of reference too.")
    ] = False,
    rename: RenameOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print changes.json, and nothing else.")] = False,
    log: LogOption = None,
) -> None:
    """Match the instances of two or more examinations of one patient and tell how each has changed.

    Scans of one frame of reference are taken as they lie, others are registered rigidly with the first. A lesion that
    a scan does not reach is told as not covered, not as vanished. No category of response is given.
    """
    with logging_to(log, hidden=[*results, *(scans or ())]), failing_as_one(str(out)):
        try:
            names = labels_of(results, label or ())
            if scans and len(scans) != len(results):
                raise ValueError(f"{len(results)} results need as many scans, got {len(scans)}")
            examinations = [
                Examination(name, _result(folder), partial(read_volume, scans[i]) if scans else partial(_scan, folder))
                for i, (name, folder) in enumerate(zip(names, results, strict=True))
            ]
            wanted = None if classes is None else [c.strip() for c in classes.split(",") if c.strip()]
            points, tracks = compare(
                examinations,
                classes=wanted,
                tolerance_mm=tolerance,
                always_register=always_register,
                rename=assignments(rename, "--rename"),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        document = changes_document(points, tracks)
        written = write_changes(document, out)
        for point in document["time_points"]:
            if point["alignment_is_doubtful"]:
                print_status(
                    "warning", f"{point['label']} does not look like the first scan once aligned: doubt the matches"
                )
        if as_json:
            print_json(document)
        else:
            _print(document)
            echo(f"written: {', '.join(map(str, written))}")


def _result(folder: Path) -> CaseResult:
    file = folder / _NEEDED if folder.is_dir() else folder
    if not file.is_file():
        raise ReadError(f"{folder} is no result: it holds no {_NEEDED}")
    return load_case(file)


def _scan(folder: Path) -> Volume:
    """The scan that a result was made from, as run.json or a batch's ledger names it."""
    files = _named_in_run(folder) or _named_in_ledger(folder)
    if not files:
        raise ReadError(f"{folder} does not tell where its scan lies: give --scan for each result")
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ReadError(f"the scan of {folder} is gone ({missing}): give --scan for each result")
    found = [scan for scan in scans_among(files) if scan.role in ("scan", "picture")]
    if len(found) != 1:
        raise ReadError(f"the files of {folder} make {len(found)} scans now: give --scan for each result")
    return found[0].read()


def _named_in_run(folder: Path) -> list[Path]:
    try:
        return [Path(file) for file in json.loads((folder / "run.json").read_text(encoding="utf-8"))["input_files"]]
    except (OSError, ValueError, KeyError):
        return []


def _named_in_ledger(folder: Path) -> list[Path]:
    whole = folder.resolve()
    place = next((p for p in whole.parents if (p / LEDGER_NAME).is_file()), None)
    if place is None:
        return []
    name = whole.relative_to(place).as_posix()
    with closing(sqlite3.connect(f"{(place / LEDGER_NAME).as_uri()}?mode=ro", uri=True)) as ledger:
        row = ledger.execute("SELECT found FROM series WHERE folder = ?", (name,)).fetchone()
    return [Path(file) for file in json.loads(row[0])["files"]] if row else []


def _print(document: dict[str, Any]) -> None:
    rows = []
    for lesion in document["lesions"]:
        for at in lesion["course"]:
            change = at["volume_change_percent"]
            rows.append([
                str(lesion["lesion"]), lesion["class"], at["time_point"], at["state"],
                "" if at["volume_mm3"] is None else volume_text(at["volume_mm3"], "mm"),
                "" if change is None else f"{change:+.0f} %",
                "" if at["longest_axial_diameter_mm"] is None else length_text(at["longest_axial_diameter_mm"], "mm"),
                "" if at["diameter_change_percent"] is None else f"{at['diameter_change_percent']:+.0f} %",
            ])  # fmt: skip
    header = ["lesion", "class", "time", "state", "volume", "change", "longest axial", "change "]
    title = ", ".join(f"{point['label']}: {point['alignment']}" for point in document["time_points"])
    print_table(title, header, rows, numbers=("lesion", "volume", "change", "longest axial", "change "))

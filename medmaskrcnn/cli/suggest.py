"""``medmaskrcnn suggest``: which scans to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmaskrcnn.cli.console import OUT, echo, print_status
from medmaskrcnn.cli.failures import EXIT_FAILED, failing_as_one, logging_to
from medmaskrcnn.cli.options import RUNNING, LogOption, model_file, with_segment_options
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.cli.train_display import count_bar
from medmaskrcnn.settings import SegmentOptions

if TYPE_CHECKING:
    from medmaskrcnn.training.suggest.suggest import Suggestions

EXAMPLES = (
    "medmaskrcnn suggest run/best.safetensors unlabelled/",
    "medmaskrcnn suggest run/best.safetensors unlabelled/ --labelled data/images -o next.csv",
    "medmaskrcnn suggest nuclei unlabelled/ --flips H,W --number 40 -o next.json",
)

_SHOWN = 20  # rows of the table


@with_segment_options(*RUNNING, "flips")
def suggest_command(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or the name of a model that ships.")],
    unlabelled: Annotated[
        list[Path], typer.Argument(metavar="UNLABELLED", help="A folder of scans without labels, or scans.")
    ],
    options: SegmentOptions,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Scans that are labelled already: others like them come late. Once for each folder."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write the whole ranking: next.csv or next.json."),
    ] = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="Scans to show in the table: --number 40.")
    ] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ranking as JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no table.")] = False,
    log: LogOption = None,
) -> None:
    """Rank scans without labels by what labelling them would teach the model.

    Scans of which the model is unsure come first: its folds, or looks at changed images, disagree about what is there
    or where it ends. Among them those come first that differ from each other and from what is labelled already.
    """
    shown = not (quiet or as_json)
    with logging_to(log, hidden=unlabelled), failing_as_one(model):
        if out is not None and out.suffix.lower() not in (".csv", ".json"):
            raise typer.BadParameter(f"{out} must end in .csv or .json", param_hint="--out")
        from medmaskrcnn.training.suggest.suggest import suggest  # here: help and wrong use need no torch

        with count_bar("look", shown=shown) as progress:
            found = suggest(model_file(model), unlabelled, labelled=labelled or (), options=options, progress=progress)
        for scan, error in found.failed:
            print_status("error", f"{scan}: {error}")
        if out is not None:
            found.write(out)
        if as_json:
            OUT.print(found.to_json())
        elif shown:
            _print(found, number)
        if shown and out is not None:
            echo(f"wrote {out}")
        raise typer.Exit(EXIT_FAILED if found.failed else 0)


def _print(found: Suggestions, number: int) -> None:
    numbers = ("rank", "uncertainty", "distance", "objects", "unsure")
    rows = [
        [str(c.rank), c.scan, f"{c.uncertainty:.2f}", f"{c.distance:.2f}", str(c.objects), str(c.unsure)]
        for c in found.cases[:number]
    ]
    print_table("Label these next", ["rank", "scan", *numbers[1:]], rows, numbers=numbers)
    if len(found.cases) > number:
        echo(f"and {len(found.cases) - number} more; --number shows more of them, -o writes all")

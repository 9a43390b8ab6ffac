"""``medmaskrcnn suspects``: labels that may be wrong, and the cases that a model does worst on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmaskrcnn.cli.console import echo, print_status
from medmaskrcnn.cli.failures import EXIT_FAILED, failing_as_one, logging_to
from medmaskrcnn.cli.labelled_data import labelled_manifest
from medmaskrcnn.cli.options import RUNNING, LogOption, model_file, with_segment_options
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.cli.train_display import count_bar
from medmaskrcnn.settings import SegmentOptions

if TYPE_CHECKING:
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn.evaluation.label_errors import LabelErrors
    from medmaskrcnn.hub.loaded_model import LoadedModel

EXAMPLES = (
    "medmaskrcnn suspects run/best.safetensors data/manifest.json -o suspects",
    "medmaskrcnn suspects run/best.safetensors data/manifest.json -o suspects --split val --pictures 100",
)


@with_segment_options(*RUNNING)
def suspects_command(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The trained model; best one with a network for each fold.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The manifest, or the labelled data in another form.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the tables and the page.")],
    options: SegmentOptions,
    split: Annotated[str, typer.Option(help="Cases to look at: train, val, test or all.")] = "all",
    pictures: Annotated[int, typer.Option(min=0, help="Suspects, and hard cases, on the page: --pictures 100.")] = 40,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Suspects to print: --number 50.")] = 20,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no table.")] = False,
    log: LogOption = None,
) -> None:
    """Find labels that may be wrong, and the cases on which a model does worst.

    A label is suspect where a sure prediction contradicts it: an object without a label, a label without an object,
    another class, another outline, several objects in one. OUT receives suspects.csv, hard_cases.csv, and suspects.html
    with pictures of the first of both. A model with a network for each fold (train --fold all) judges each case by the
    network that has not learnt from it; one that has learnt a wrong label believes it.
    """
    with logging_to(log, hidden=[data]), failing_as_one(str(data)):
        from medmaskrcnn.evaluation.label_errors import find_label_errors  # here: help and wrong use need no torch
        from medmaskrcnn.hub.loaded_model import load_as_asked

        manifest = labelled_manifest([data], out, shown=not quiet)
        loaded = load_as_asked(model_file(model), options)
        with count_bar("look", shown=not quiet) as progress:
            found = find_label_errors(
                loaded, _dealt(manifest, loaded), split=split, pictures=pictures, options=options, progress=progress
            )
        for case in found.failed:
            print_status("error", f"{case.id}: {case.error}")
        found.write(out)
        if not quiet:
            _print(found, number)
            echo(f"wrote {out}")
        raise typer.Exit(EXIT_FAILED if found.failed else 0)


def _dealt(manifest: Manifest, loaded: LoadedModel) -> Manifest:
    """The manifest with the folds that a training with all folds deals, if the model is one of such a training."""
    networks = loaded.views[0]
    if networks < 2:
        return manifest
    from medmaskrcnn.training.folds import with_folds

    return with_folds(manifest, networks)


def _print(found: LabelErrors, number: int) -> None:
    rows = [
        [str(rank), s.case, s.kind, s.class_name, s.predicted, f"{s.score:.2f}", f"{s.iou:.2f}", f"{s.suspicion:.2f}"]
        for rank, s in enumerate(found.suspects[:number], start=1)
    ]
    header = ["rank", "case", "kind", "class", "predicted", "score", "IoU", "suspicion"]
    print_table("Labels to look at", header, rows, numbers=("rank", "score", "IoU", "suspicion"))
    worst = [[str(rank), case.id, f"{case.error:.2f}"] for rank, case in enumerate(found.evaluation.worst_first, 1)]
    print_table("Hard cases", ["rank", "case", "error"], worst[:10], numbers=("rank", "error"))
